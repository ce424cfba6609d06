// MUL_MAT: a matrix of weights times rows of activations.
#include "cpu_backend/matrices.h"

#include <algorithm>

namespace mp::cpu_kernels::product {

namespace {

// So many of a prompt's rows stay in a core's cache while the columns of a chunk pass by, and the other way round.
constexpr int rows_at_once = 64;
constexpr int64_t columns_at_once = 64;

using Multiply = decltype(kernels::Kernel::multiply);

// Rows that follow one another and are packed together.
struct Rows {
    int first;
    int n;
    Multiply multiply;
    size_t packed_at;
    size_t packed_bytes;
};

// The rows of a prompt in batches of four, where ggml rounds those in another order, and what is left over.
struct Plan {
    Rows batches;
    Rows rest;

    Plan(const kernels::Kernel & kernel, int64_t k, int n_rows, bool as_prompt) {
        const int n_batches = as_prompt && kernel.multiply_batches != nullptr ? n_rows / 4 * 4 : 0;
        batches = {0, n_batches, kernel.multiply_batches, 0, kernel.packed_bytes(k, n_batches)};
        rest = {n_batches, n_rows - n_batches, kernel.multiply, batches.packed_bytes,
                kernel.packed_bytes(k, n_rows - n_batches)};
    }

    size_t bytes() const { return batches.packed_bytes + rest.packed_bytes; }
    const Rows & of(int row) const { return row < batches.n ? batches : rest; }
};

bool are_in_a_row(const ggml::Tensor & x) {
    return x.ne[3] == 1 && (x.ne[2] == 1 || x.nb[2] == static_cast<size_t>(x.ne[1]) * x.nb[1]);
}

} // namespace

int64_t count_rows(const ggml::Tensor & op) { return op.src[1]->ne[1] * op.src[1]->ne[2]; }

int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    constexpr int hint_at = 1; // says that the weights are a known transform
    const bool is_plain = w.ne[2] == 1 && are_in_a_row(x) && are_in_a_row(op) && x.data != nullptr &&
                          x.type == ggml::f32 && x.nb[0] == sizeof(float) && op.nb[0] == sizeof(float) &&
                          op.op_params[hint_at] == 0;
    return is_plain ? entry_for_weights(s, w, count_rows(op), allowed) : -1;
}

// A quantized row for each thread, then the packed rows.
size_t work_bytes(const State & s, const kernels::Kernel & kernel, const ggml::Tensor & op, int n_threads,
                  bool as_prompt) {
    const int64_t k = op.src[0]->ne[0];
    const int n_rows = static_cast<int>(count_rows(op));
    const size_t row = quantized_bytes(s, kernel, k);
    const size_t bytes = row * static_cast<size_t>(n_threads) + Plan(kernel, k, n_rows, as_prompt).bytes();
    // Where ggml's own kernels take over after all, they need all rows quantized.
    return 64 + std::max(bytes, row * static_cast<size_t>(n_rows));
}

void compute(const State & s, const kernels::Kernel & kernel, const ggml::ComputeParams & params, ggml::Tensor & op,
             bool as_prompt) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    const int64_t k = w.ne[0];
    const int64_t n_columns = w.ne[1];
    const int n_rows = static_cast<int>(count_rows(op));
    const size_t row_bytes = quantized_bytes(s, kernel, k);
    char * work = aligned(params.wdata);
    char * room = work + static_cast<size_t>(params.ith) * row_bytes;
    char * packed = work + static_cast<size_t>(params.nth) * row_bytes;

    const Plan plan(kernel, k, n_rows, as_prompt);
    const Part part = part_of(kernel, k, params);
    for (int row = 0; row < n_rows && part.first < part.last; ++row) {
        const auto * floats = reinterpret_cast<const float *>(row_of(x, row, 0));
        const Rows & rows = plan.of(row);
        kernel.pack(quantize(s, kernel, floats, part, room), k, part.first, part.last, row - rows.first, rows.n,
                    packed + rows.packed_at);
    }
    start_chunks(s, params);

    const int64_t share = params.nth == 1 ? n_columns : (n_columns + 4 * params.nth - 1) / (4 * params.nth);
    const int64_t chunk =
        columns_per_chunk(kernel, n_columns, n_rows <= rows_at_once ? share : std::min(share, columns_at_once));
    const size_t stride = op.nb[1] / sizeof(float);
    for (int64_t at = params.ith; at * chunk < n_columns; at = next_chunk(s, params)) {
        for (const Rows & rows : {plan.batches, plan.rest}) {
            for (int row = 0; row < rows.n; row += rows_at_once) {
                rows.multiply(w.data, k, at * chunk, std::min(n_columns, (at + 1) * chunk),
                              packed + rows.packed_at + kernel.packed_bytes(k, row),
                              std::min(rows.n - row, rows_at_once),
                              static_cast<float *>(op.data) + static_cast<size_t>(rows.first + row) * stride, stride);
            }
        }
    }
}

} // namespace mp::cpu_kernels::product
