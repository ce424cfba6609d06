// Products of random weights and rows, what a kernel makes of them, and what it must leave alone.
#pragma once

#include "kernel_references_neon.h"
#include "kernel_references_x86.h"

#include <cstdlib>
#include <memory>

namespace mp::test {

struct Case {
    Weights weights;
    const Kernel * kernel;
    Order order;
    Format format;
    int64_t n_blocks;
    int64_t n_columns;
    int n_rows;
    std::vector<char> w; // exactly as large as it must be: sanitizers see what is read behind it
    std::vector<char> x; // quantized rows

    int64_t k() const { return n_blocks * format.elements; }
    const char * row(int r) const { return x.data() + static_cast<size_t>(r) * n_blocks * format.row_bytes; }

    float reference(int64_t column, int r) const {
        const size_t group_bytes = static_cast<size_t>(n_blocks) * format.block_bytes;
        const char * from = w.data() + static_cast<size_t>(column) / format.columns * group_bytes;
        const int within = static_cast<int>(column % static_cast<int64_t>(format.columns));
        return (order.is_neon() ? neon::reference : x86::reference)(weights, order, from, row(r), n_blocks, within);
    }
};

inline Case random_case(std::mt19937 & rng, Weights weights, const Kernel * kernel, const Order & order,
                        int64_t n_multiples, int64_t n_columns, int n_rows) {
    const Format format = format_of(weights, order);
    const int64_t n_blocks = n_multiples * (kernel->k_multiple / format.elements);
    Case c{weights, kernel, order, format, n_blocks, n_columns, n_rows, {}, {}};
    const size_t blocks = static_cast<size_t>(n_columns) / c.format.columns * static_cast<size_t>(n_blocks);
    c.w.resize(blocks * c.format.block_bytes);
    for (size_t b = 0; b < blocks; ++b) {
        fill_block(rng, weights, c.format, c.w.data() + b * c.format.block_bytes);
    }
    const size_t row_blocks = static_cast<size_t>(n_rows) * static_cast<size_t>(n_blocks);
    c.x.resize(row_blocks * c.format.row_bytes);
    for (size_t b = 0; b < row_blocks; ++b) {
        fill_activations(rng, kernel->activations, c.format, c.x.data() + b * c.format.row_bytes);
    }
    return c;
}

// Memory aligned as packed rows are, and no byte more than asked for.
struct Packed {
    std::unique_ptr<char, void (*)(void *)> memory;
    explicit Packed(size_t bytes) : memory(static_cast<char *>(std::aligned_alloc(64, bytes)), std::free) {
        std::memset(memory.get(), 0x5a, bytes);
    }
};

inline Packed pack(std::mt19937 & rng, const Case & c) {
    Packed packed(c.kernel->packed_bytes(c.k(), c.n_rows));
    for (int r = 0; r < c.n_rows; ++r) {
        // In two ranges, as two threads would.
        const int64_t unit = c.kernel->k_multiple / c.format.elements;
        const int64_t middle = below(rng, static_cast<int32_t>(c.n_blocks / unit) + 1) * unit;
        const int64_t ends[] = {0, middle, c.n_blocks};
        for (int i = 1; i >= 0; --i) {
            c.kernel->pack(c.row(r) + ends[i] * c.format.row_bytes, c.k(), ends[i] * c.format.elements,
                           ends[i + 1] * c.format.elements, r, c.n_rows, packed.memory.get());
        }
    }
    return packed;
}

// However a row is cut, the same bytes come of it, and none before or behind them.
inline void check_packing(const Case & c, const Packed & packed) {
    const size_t bytes = c.kernel->packed_bytes(c.k(), c.n_rows);
    const Packed guarded(64 + bytes + 64);
    char * const inner = guarded.memory.get() + 64;
    for (int r = 0; r < c.n_rows; ++r) {
        c.kernel->pack(c.row(r), c.k(), 0, c.k(), r, c.n_rows, inner);
    }
    CHECK(std::memcmp(inner, packed.memory.get(), bytes) == 0);
    size_t n_touched = 0;
    for (int i = 0; i < 64; ++i) {
        n_touched += inner[i - 64] == 0x5a && inner[bytes + static_cast<size_t>(i)] == 0x5a ? 0 : 1;
    }
    CHECK_EQ(n_touched, size_t{0});
}

using Range = std::array<int64_t, 2>;

// All columns in ranges such as threads take, in any order, some of them empty.
inline std::vector<Range> ranges_of(std::mt19937 & rng, const Case & c) {
    std::vector<Range> ranges;
    for (int64_t first = 0; first < c.n_columns;) {
        const int64_t last = std::min(c.n_columns, first + (1 + below(rng, 4)) * c.kernel->range_multiple);
        ranges.push_back({first, last});
        ranges.push_back({first, first});
        first = last;
    }
    for (size_t i = ranges.size(); i > 1; --i) {
        std::swap(ranges[i - 1], ranges[static_cast<size_t>(below(rng, static_cast<int32_t>(i)))]);
    }
    return ranges;
}

inline bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

inline void check_case(std::mt19937 & rng, const Case & c) {
    const Packed packed = pack(rng, c);
    check_packing(c, packed);
    const size_t stride = static_cast<size_t>(c.n_columns) + 3;
    constexpr float untouched = 12345.0f;
    std::vector<float> y(stride * static_cast<size_t>(c.n_rows + 2), untouched); // a row before and one behind
    for (const auto & [first, last] : ranges_of(rng, c)) {
        const std::vector<float> before = first == last ? y : std::vector<float>();
        c.kernel->multiply(c.w.data(), c.k(), first, last, packed.memory.get(), c.n_rows, y.data() + stride, stride);
        CHECK(first != last || y == before);
    }
    size_t n_wrong = 0;
    size_t n_touched = 0;
    for (int r = -1; r <= c.n_rows; ++r) {
        for (int64_t column = 0; column < static_cast<int64_t>(stride); ++column) {
            const float got = y[static_cast<size_t>(r + 1) * stride + static_cast<size_t>(column)];
            if (r < 0 || r == c.n_rows || column >= c.n_columns) {
                n_touched += got == untouched ? 0 : 1;
            } else {
                n_wrong += same_bits(got, c.reference(column, r)) ? 0 : 1;
            }
        }
    }
    CHECK_EQ(n_wrong, size_t{0});
    CHECK_EQ(n_touched, size_t{0});
}

inline void check_kernel(Weights weights, const Kernel * kernel, const Order & order) {
    constexpr uint32_t seed = 7;
    const Scope seeded("seed " + std::to_string(seed));
    std::mt19937 rng(seed);
    const bool of_bfloats = weights == Weights::bf16 && order.fused;
    const bool by_pairs = order.is_neon() && (weights == Weights::q4_0 || weights == Weights::q4_1 ||
                                              weights == Weights::q5_0 || weights == Weights::q8_0);
    CHECK_EQ(kernel->k_multiple, format_of(weights, order).elements * (by_pairs || of_bfloats ? 2 : 1));
    CHECK_EQ(kernel->n_multiple, static_cast<int>(format_of(weights, order).columns));
    const auto columns = [&](int64_t n) { return n * kernel->n_multiple; };
    for (int n_rows = 1; n_rows <= 20; ++n_rows) {
        const Scope scope(std::to_string(n_rows) + " rows");
        check_case(rng, random_case(rng, weights, kernel, order, 1 + n_rows % 3, columns(1 + below(rng, 21)), n_rows));
    }
    for (const int n_rows : {33, 64}) {
        const Scope scope(std::to_string(n_rows) + " rows");
        check_case(rng, random_case(rng, weights, kernel, order, 2, columns(5), n_rows));
    }
    for (const int64_t n_columns : {1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 48}) {
        const Scope scope(std::to_string(n_columns) + " columns");
        check_case(rng, random_case(rng, weights, kernel, order, 5, columns(n_columns), 1 + below(rng, 9)));
    }
    for (const int64_t n_blocks : {1, 2, 3, 8, 19}) {
        const Scope scope(std::to_string(n_blocks) + " blocks");
        check_case(rng, random_case(rng, weights, kernel, order, n_blocks, columns(4), 1 + below(rng, 9)));
    }
}

} // namespace mp::test
