// MUL_MAT_ID: rows of activations times the matrices of the experts that they were sent to. Rows that share an expert
// are multiplied together, so that its weights are read once.
#include "cpu_backend/matrices.h"

#include <algorithm>
#include <utility>

namespace mp::cpu_kernels::experts {

namespace {

// A token and which of its experts: where a row of activations comes from and a row of results goes.
struct Sent {
    int32_t token;
    int32_t slot;
};

// All that is sent, by expert; each thread finds it out for itself.
struct Groups {
    int32_t * ends; // [n_experts], in sent
    Sent * sent;

    static size_t bytes(const ggml::Tensor & op) {
        const int64_t n_sent = op.src[2]->ne[0] * op.src[2]->ne[1];
        return aligned(static_cast<size_t>(op.src[0]->ne[2]) * sizeof(int32_t)) +
               aligned(static_cast<size_t>(n_sent) * sizeof(Sent));
    }

    Groups(const ggml::Tensor & op, char * memory) : ends(reinterpret_cast<int32_t *>(memory)) {
        const ggml::Tensor & ids = *op.src[2];
        const auto n_experts = static_cast<size_t>(op.src[0]->ne[2]);
        sent = reinterpret_cast<Sent *>(memory + aligned(n_experts * sizeof(int32_t)));
        std::fill(ends, ends + n_experts, 0);
        const auto for_each = [&](const auto & use) {
            for (int32_t token = 0; token < ids.ne[1]; ++token) {
                for (int32_t slot = 0; slot < ids.ne[0]; ++slot) {
                    use(*reinterpret_cast<const int32_t *>(row_of(ids, token, 0) +
                                                           static_cast<size_t>(slot) * ids.nb[0]),
                        Sent{token, slot});
                }
            }
        };
        for_each([&](int32_t expert, Sent) { ++ends[expert]; });
        int32_t first = 0;
        for (size_t i = 0; i < n_experts; ++i) {
            first += std::exchange(ends[i], first);
        }
        for_each([&](int32_t expert, Sent one) { sent[ends[expert]++] = one; });
    }

    int32_t first(int64_t expert) const { return expert == 0 ? 0 : ends[expert - 1]; }
    int n_rows(int64_t expert) const { return ends[expert] - first(expert); }
};

int64_t chunk_of(const kernels::Kernel & kernel, int64_t n_columns, int n_threads) {
    return columns_per_chunk(kernel, n_columns,
                             n_threads == 1 ? 256 : (n_columns + 2 * n_threads - 1) / (2 * n_threads));
}

} // namespace

int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    const ggml::Tensor & ids = *op.src[2];
    const bool shapes = x.ne[3] == 1 && x.ne[2] == ids.ne[1] && (x.ne[1] == 1 || x.ne[1] == ids.ne[0]) &&
                        ids.ne[2] == 1 && ids.ne[3] == 1 && w.ne[2] >= 1 && x.ne[2] <= most_rows;
    const bool is_plain = x.type == ggml::f32 && x.nb[0] == sizeof(float) && op.nb[0] == sizeof(float) &&
                          ids.type == ggml::i32 && x.data != nullptr && ids.data != nullptr && in_host_memory(s, ids) &&
                          w.nb[2] == static_cast<size_t>(w.ne[1]) * w.nb[1];
    return shapes && is_plain ? entry_for_weights(s, w, x.ne[2], allowed) : -1;
}

// Each thread has room for the groups, a quantized row and the results of a chunk; the packed rows follow.
size_t work_bytes(const State & s, const kernels::Kernel & kernel, const ggml::Tensor & op, int n_threads) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    const auto n_tokens = static_cast<size_t>(x.ne[2]);
    const auto n_sent = static_cast<size_t>(op.src[2]->ne[0]) * n_tokens;
    const auto n_experts = static_cast<size_t>(w.ne[2]);
    const size_t row = quantized_bytes(s, kernel, w.ne[0]);
    const auto chunk = static_cast<size_t>(chunk_of(kernel, w.ne[1], n_threads));
    const size_t of_thread = Groups::bytes(op) + row + aligned(n_tokens * chunk * sizeof(float));
    const size_t bytes = of_thread * static_cast<size_t>(n_threads) + n_sent * aligned(kernel.packed_bytes(w.ne[0], 1));
    // Where ggml's own kernels take over after all, they need all rows quantized, and two lists and a counter's line
    // for each expert.
    const size_t stock = row * static_cast<size_t>(x.ne[1]) * n_tokens + n_experts * (n_sent * 8 + 128);
    return 64 + std::max(bytes, stock);
}

void compute(const State & s, const kernels::Kernel & kernel, const ggml::ComputeParams & params, ggml::Tensor & op) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    const int64_t k = w.ne[0];
    const int64_t n_columns = w.ne[1];
    const int64_t chunk = chunk_of(kernel, n_columns, params.nth);
    const size_t row_bytes = quantized_bytes(s, kernel, k);
    const size_t packed_bytes = aligned(kernel.packed_bytes(k, 1)); // a row's; several together take no more each
    const size_t of_thread =
        Groups::bytes(op) + row_bytes + aligned(static_cast<size_t>(x.ne[2] * chunk) * sizeof(float));
    char * work = aligned(params.wdata);
    char * mine = work + static_cast<size_t>(params.ith) * of_thread;
    char * packed = work + static_cast<size_t>(params.nth) * of_thread;
    const Groups groups(op, mine);
    char * room = mine + Groups::bytes(op);
    auto * results = reinterpret_cast<float *>(room + row_bytes);

    const Part part = part_of(kernel, k, params);
    for (int64_t expert = 0; expert < w.ne[2] && part.first < part.last; ++expert) {
        const int n_rows = groups.n_rows(expert);
        for (int row = 0; row < n_rows; ++row) {
            const Sent & from = groups.sent[groups.first(expert) + row];
            const auto * floats = reinterpret_cast<const float *>(row_of(x, from.slot % x.ne[1], from.token));
            kernel.pack(quantize(s, kernel, floats, part, room), k, part.first, part.last, row, n_rows,
                        packed + static_cast<size_t>(groups.first(expert)) * packed_bytes);
        }
    }
    start_chunks(s, params);

    const int64_t n_chunks = (n_columns + chunk - 1) / chunk;
    for (int64_t at = params.ith; at < w.ne[2] * n_chunks; at = next_chunk(s, params)) {
        const int64_t expert = at / n_chunks;
        const int64_t first = at % n_chunks * chunk;
        const int64_t last = std::min(n_columns, first + chunk);
        const int n_rows = groups.n_rows(expert);
        if (n_rows == 0) {
            continue;
        }
        // Results start at column `first`: the kernel counts from column 0.
        kernel.multiply(row_of(w, 0, expert), k, first, last,
                        packed + static_cast<size_t>(groups.first(expert)) * packed_bytes, n_rows, results - first,
                        static_cast<size_t>(chunk));
        for (int row = 0; row < n_rows; ++row) {
            const Sent & to = groups.sent[groups.first(expert) + row];
            std::memcpy(static_cast<char *>(op.data) + static_cast<size_t>(to.slot) * op.nb[1] +
                            static_cast<size_t>(to.token) * op.nb[2] + static_cast<size_t>(first) * sizeof(float),
                        results + row * chunk, static_cast<size_t>(last - first) * sizeof(float));
        }
    }
}

} // namespace mp::cpu_kernels::experts
