// Any weights, sizes and rows: each row of a product has the bits that it has alone, whatever the ranges that threads
// would take, and nothing is read or written that is not theirs.
#include "fuzz.h"
#include "kernels.h"

#include <cstdlib>
#include <memory>

using namespace mp::kernels;
using namespace mp::test;

namespace {

// The input's bytes first, then any.
std::vector<char> contents(Input & in, size_t n) {
    std::mt19937 rng(in.bits());
    std::vector<char> out(n);
    for (char & byte : out) {
        byte = static_cast<char>(in.done() ? rng() : in.byte());
    }
    return out;
}

size_t bytes_of(Weights weights, int64_t k) {
    const auto n = static_cast<size_t>(k);
    switch (weights) {
    case Weights::q4_0:
    case Weights::q4_0_repacked: return n / 32 * 18;
    case Weights::q4_1: return n / 32 * 20;
    case Weights::q5_0: return n / 32 * 22;
    case Weights::q8_0:
    case Weights::q8_0_repacked: return n / 32 * 34;
    case Weights::q4_k:
    case Weights::q4_k_repacked: return n / 256 * 144;
    case Weights::q6_k:
    case Weights::q6_k_repacked: return n / 256 * 210;
    case Weights::f16: return 2 * n;
    case Weights::f32: return 4 * n;
    }
    return 0;
}

size_t bytes_of(Activations activations, int64_t k) {
    const auto n = static_cast<size_t>(k);
    switch (activations) {
    case Activations::q8_0: return n / 32 * 34;
    case Activations::q8_1: return n / 32 * 36;
    case Activations::q8_k: return n / 256 * 292;
    case Activations::f16: return 2 * n;
    case Activations::f32: return 4 * n;
    }
    return 0;
}

using Memory = std::unique_ptr<char, void (*)(void *)>;

// Rows from the first on, each packed in two ranges.
Memory packed_rows(const Kernel & kernel, int64_t k, const std::vector<char> & rows, int first, int n, int64_t middle) {
    Memory packed(static_cast<char *>(std::aligned_alloc(64, kernel.packed_bytes(k, n))), std::free);
    std::memset(packed.get(), 0, kernel.packed_bytes(k, n));
    const size_t row_bytes = bytes_of(kernel.activations, k);
    for (int r = 0; r < n; ++r) {
        const char * row = rows.data() + static_cast<size_t>(first + r) * row_bytes;
        kernel.pack(row + bytes_of(kernel.activations, middle), k, middle, k, r, n, packed.get());
        kernel.pack(row, k, 0, middle, r, n, packed.get());
    }
    return packed;
}

} // namespace

// Where there are no kernels, that is all there is to check.
void fuzz_begin() { CHECK(find(Weights::q4_0, Instructions::none, false) == nullptr); }

void fuzz_one(Input & in) {
    const auto weights = static_cast<Weights>(in.below(n_weights));
    const auto instructions = static_cast<Instructions>(in.below(6));
    const Kernel * kernel = processor_has(instructions) ? find(weights, instructions, in.coin(), in.coin()) : nullptr;
    if (kernel == nullptr) {
        return;
    }
    const int64_t k = static_cast<int64_t>(kernel->k_multiple) * (1 + in.below(3));
    const int64_t n = static_cast<int64_t>(kernel->n_multiple) * (1 + in.below(24));
    const int n_rows = 1 + in.below(20);
    const int64_t step = static_cast<int64_t>(kernel->range_multiple) * (1 + in.below(3));
    const std::vector<char> rows = contents(in, bytes_of(kernel->activations, k) * static_cast<size_t>(n_rows));
    const std::vector<char> w = contents(in, bytes_of(weights, k) * static_cast<size_t>(n));

    const int64_t middle = static_cast<int64_t>(kernel->k_multiple) * (n_rows % (k / kernel->k_multiple + 1));
    const Memory packed = packed_rows(*kernel, k, rows, 0, n_rows, middle);
    std::vector<float> all(static_cast<size_t>(n) * static_cast<size_t>(n_rows));
    for (int64_t first = 0; first < n; first += step) {
        kernel->multiply(w.data(), k, first, std::min(n, first + step), packed.get(), n_rows, all.data(),
                         static_cast<size_t>(n));
    }
    for (int r = 0; r < n_rows; ++r) {
        const Memory one = packed_rows(*kernel, k, rows, r, 1, k);
        std::vector<float> alone(static_cast<size_t>(n));
        kernel->multiply(w.data(), k, 0, n, one.get(), 1, alone.data(), static_cast<size_t>(n));
        for (int64_t c = 0; c < n; ++c) {
            const float a = alone[static_cast<size_t>(c)];
            const float b = all[static_cast<size_t>(r * n + c)];
            // Which NaN comes out of several is nobody's promise.
            CHECK((std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0);
        }
    }
}
