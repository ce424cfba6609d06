// Kernels: their bits against a scalar reference that does ggml's one-row arithmetic in its order, for every kind of
// weights, every instruction set of this processor, sizes with and without remainders, and any number of rows. And
// what they must leave alone: results of other columns and rows, memory before and behind what they were given.
#include "check.h"
#include "kernel_reference_floats.h"
#include "kernels.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

using namespace mp;
using namespace mp::kernels;
using namespace mp::test;

namespace {

struct Case {
    Weights weights;
    const Kernel * kernel;
    bool wide;
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
        switch (weights) {
        case Weights::q4_k: return q4k_reference(from, row(r), n_blocks);
        case Weights::q5_k: return q5k_reference(from, row(r), n_blocks);
        case Weights::q2_k_x8: return q2kx8_reference(from, row(r), n_blocks, within);
        case Weights::q2_k: return q2k_reference(from, row(r), n_blocks);
        case Weights::q3_k: return q3k_reference(from, row(r), n_blocks);
        case Weights::iq4_xs: return iq4xs_reference(from, row(r), n_blocks);
        case Weights::q6_k: return q6k_reference(from, row(r), n_blocks);
        case Weights::q4_0_x8: return q4_0x8_reference(from, row(r), n_blocks, within);
        case Weights::q4_k_x8: return q4kx8_reference(from, row(r), n_blocks, within);
        case Weights::mxfp4:
        case Weights::iq4_nl: return lookup_reference(weights, from, row(r), n_blocks);
        case Weights::mxfp4_x8:
        case Weights::iq4_nl_x8: return lookup_x8_reference(weights, from, row(r), n_blocks, within);
        case Weights::bf16: return bf16_reference(wide, from, row(r), n_blocks);
        case Weights::f16: return float_reference(true, wide, from, row(r), n_blocks);
        case Weights::f32: return float_reference(false, wide, from, row(r), n_blocks);
        default: return plain_reference(weights, from, row(r), n_blocks);
        }
    }
};

Case random_case(std::mt19937 & rng, Weights weights, const Kernel * kernel, bool wide, int64_t n_blocks,
                 int64_t n_columns, int n_rows) {
    Case c{weights, kernel, wide, format_of(weights, wide), n_blocks, n_columns, n_rows, {}, {}};
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

Packed pack(std::mt19937 & rng, const Case & c) {
    Packed packed(c.kernel->packed_bytes(c.k(), c.n_rows));
    for (int r = 0; r < c.n_rows; ++r) {
        // In two ranges, as two threads would.
        const int64_t middle = below(rng, static_cast<int32_t>(c.n_blocks) + 1);
        const int64_t ends[] = {0, middle, c.n_blocks};
        for (int i = 1; i >= 0; --i) {
            c.kernel->pack(c.row(r) + ends[i] * c.format.row_bytes, c.k(), ends[i] * c.format.elements,
                           ends[i + 1] * c.format.elements, r, c.n_rows, packed.memory.get());
        }
    }
    return packed;
}

// However a row is cut, the same bytes come of it, and none before or behind them.
void check_packing(const Case & c, const Packed & packed) {
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
std::vector<Range> ranges_of(std::mt19937 & rng, const Case & c) {
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

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void check_case(std::mt19937 & rng, const Case & c) {
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

void check_kernel(Weights weights, const Kernel * kernel, bool wide) {
    constexpr uint32_t seed = 7;
    const Scope seeded("seed " + std::to_string(seed));
    std::mt19937 rng(seed);
    CHECK_EQ(kernel->k_multiple, format_of(weights, wide).elements);
    CHECK_EQ(kernel->n_multiple, static_cast<int>(format_of(weights, wide).columns));
    const auto columns = [&](int64_t n) { return n * kernel->n_multiple; };
    for (int n_rows = 1; n_rows <= 20; ++n_rows) {
        const Scope scope(std::to_string(n_rows) + " rows");
        check_case(rng, random_case(rng, weights, kernel, wide, 1 + n_rows % 3, columns(1 + below(rng, 21)), n_rows));
    }
    for (const int n_rows : {33, 64}) {
        const Scope scope(std::to_string(n_rows) + " rows");
        check_case(rng, random_case(rng, weights, kernel, wide, 2, columns(5), n_rows));
    }
    for (const int64_t n_columns : {1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 48}) {
        const Scope scope(std::to_string(n_columns) + " columns");
        check_case(rng, random_case(rng, weights, kernel, wide, 5, columns(n_columns), 1 + below(rng, 9)));
    }
    for (const int64_t n_blocks : {1, 2, 3, 8, 19}) {
        const Scope scope(std::to_string(n_blocks) + " blocks");
        check_case(rng, random_case(rng, weights, kernel, wide, n_blocks, columns(4), 1 + below(rng, 9)));
    }
}

void test_all() {
    size_t n_kernels = 0;
    for (const Instructions instructions : {Instructions::avx2, Instructions::avx2_vnni, Instructions::avx512_vnni}) {
        for (int w = 0; processor_has(instructions) && w < n_weights; ++w) {
            for (const bool wide : {false, true}) {
                const auto weights = static_cast<Weights>(w);
                if (const Kernel * kernel = find(weights, instructions, wide)) {
                    const Scope scope(std::string(name_of(weights)) + ", " + name_of(instructions) +
                                      (wide ? ", 16 floats" : ", 8 floats"));
                    check_kernel(weights, kernel, wide);
                    ++n_kernels;
                }
            }
        }
    }
    // Where the processor has what kernels need, there are some.
    CHECK_EQ(n_kernels > 0, processor_instructions() != Instructions::none);
}

// A build has kernels for all weights and instruction sets or none at all. But sums of 8 float lanes are not those of
// 16: those of AVX2 are always 8, and AVX-512 takes them over where ggml was built for AVX2.
void test_what_is_there() {
    const bool built = find(Weights::q4_0, Instructions::avx2, false) != nullptr;
    CHECK(built || processor_instructions() == Instructions::none);
    for (int w = 0; w < n_weights; ++w) {
        const auto weights = static_cast<Weights>(w);
        const bool is_float = weights == Weights::bf16 || weights == Weights::f16 || weights == Weights::f32;
        for (const bool wide : {false, true}) {
            CHECK(find(weights, Instructions::none, wide) == nullptr);
            const bool known = built && (wide || weights != Weights::q2_k_x8);
            CHECK_EQ(find(weights, Instructions::avx2, wide) != nullptr, known && !(is_float && wide));
            CHECK_EQ(find(weights, Instructions::avx2_vnni, wide) != nullptr, known && !(is_float && wide));
            CHECK_EQ(find(weights, Instructions::avx512_vnni, wide) != nullptr, known);
        }
        CHECK_EQ(find(weights, Instructions::avx512_vnni, false) == find(weights, Instructions::avx2, false),
                 !built || is_float || weights == Weights::q2_k_x8);
    }
    CHECK(processor_has(processor_instructions()));
    CHECK(processor_has(Instructions::none));
}

} // namespace

int main() {
    run("all", test_all);
    run("what_is_there", test_what_is_there);
    return finish();
}
