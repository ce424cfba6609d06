// Kernels: their bits against a scalar reference that does ggml's one-row arithmetic in its order, for every kind of
// weights, every instruction set of this processor, sizes with and without remainders, and any number of rows. And
// what they must leave alone: results of other columns and rows, memory before and behind what they were given.
#include "../kernels/blocks.h"
#include "check.h"
#include "kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

using namespace mp;
using namespace mp::kernels;
using namespace mp::test;

namespace {

float from_half(uint16_t half) {
    const int exponent = half >> 10 & 31;
    const float mantissa = static_cast<float>(half & 1023);
    const float size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024.0f, exponent - 25);
    return half >> 15 != 0 ? -size : size;
}

// Finite, of either sign, small, subnormal or zero now and then.
uint16_t random_half(std::mt19937 & rng) {
    const int32_t kind = below(rng, 12);
    const auto bits = static_cast<uint16_t>(below(rng, 1024) | below(rng, 2) << 15);
    return kind == 0 ? 0 : kind == 1 ? bits : static_cast<uint16_t>(bits | (8 + below(rng, 12)) << 10);
}

float random_float(std::mt19937 & rng) {
    return std::ldexp(static_cast<float>(below(rng, 1 << 20) - (1 << 19)), below(rng, 8) - 20);
}

// --- the formats, element by element ----------------------------------------------------------------

struct Format {
    size_t block_bytes;
    int elements;     // of a block
    size_t columns;   // that a block holds
    size_t row_bytes; // of a block of quantized activations
};

Format format_of(Weights weights, bool wide) {
    const int floats = wide ? 64 : 32;
    switch (weights) {
    case Weights::q4_0: return {sizeof(BlockQ4_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q4_0_repacked: return {sizeof(BlockQ4_0x8), 32, 8, sizeof(BlockQ8_0)};
    case Weights::q4_1: return {sizeof(BlockQ4_1), 32, 1, sizeof(BlockQ8_1)};
    case Weights::q5_0: return {sizeof(BlockQ5_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q8_0: return {sizeof(BlockQ8_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q4_k: return {sizeof(BlockQ4K), 256, 1, sizeof(BlockQ8K)};
    case Weights::q4_k_repacked: return {sizeof(BlockQ4Kx8), 256, 8, sizeof(BlockQ8K)};
    case Weights::q6_k: return {sizeof(BlockQ6K), 256, 1, sizeof(BlockQ8K)};
    case Weights::f16: return {2 * static_cast<size_t>(floats), floats, 1, 2 * static_cast<size_t>(floats)};
    case Weights::f32: return {4 * static_cast<size_t>(floats), floats, 1, 4 * static_cast<size_t>(floats)};
    }
    return {};
}

// Where the scales of a block stand: random halves there, random bytes elsewhere.
std::vector<size_t> halves_of(Weights weights) {
    switch (weights) {
    case Weights::q4_0:
    case Weights::q5_0:
    case Weights::q8_0: return {0};
    case Weights::q4_1:
    case Weights::q4_k: return {0, 2};
    case Weights::q6_k: return {208};
    case Weights::q4_0_repacked: return {0, 2, 4, 6, 8, 10, 12, 14};
    case Weights::q4_k_repacked: return {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    default: return {};
    }
}

void fill_block(std::mt19937 & rng, Weights weights, const Format & format, char * out) {
    if (weights == Weights::f32) {
        for (int i = 0; i < format.elements; ++i) {
            const float value = random_float(rng);
            std::memcpy(out + 4 * i, &value, 4);
        }
        return;
    }
    const int32_t kind = below(rng, 8); // the extremes of every quant now and then
    for (size_t i = 0; i < format.block_bytes; ++i) {
        out[i] = static_cast<char>(kind == 0 ? 0 : kind == 1 ? 255 : kind == 2 ? 128 : below(rng, 256));
    }
    std::vector<size_t> halves = halves_of(weights);
    for (int i = 0; weights == Weights::f16 && i < format.elements; ++i) {
        halves.push_back(2 * static_cast<size_t>(i));
    }
    for (const size_t at : halves) {
        const uint16_t half = random_half(rng);
        std::memcpy(out + at, &half, 2);
    }
}

void fill_activations(std::mt19937 & rng, Activations activations, const Format & format, char * out) {
    const int32_t kind = below(rng, 6);
    const bool zeros = kind == 2; // ggml leaves the sums of such a Q8_K block as they were
    const auto quant = [&] {
        return static_cast<int8_t>(zeros ? 0 : kind == 0 ? 127 : kind == 1 ? -127 : below(rng, 255) - 127);
    };
    switch (activations) {
    case Activations::q8_0: {
        BlockQ8_0 block;
        block.d = zeros ? 0 : random_half(rng);
        for (int8_t & q : block.qs) {
            q = quant();
        }
        std::memcpy(out, &block, sizeof block);
        return;
    }
    case Activations::q8_1: {
        BlockQ8_1 block;
        block.d = zeros ? 0 : random_half(rng);
        block.s = random_half(rng);
        for (int8_t & q : block.qs) {
            q = quant();
        }
        std::memcpy(out, &block, sizeof block);
        return;
    }
    case Activations::q8_k: {
        BlockQ8K block;
        block.d = zeros ? 0.0f : random_float(rng);
        for (int i = 0; i < 16; ++i) {
            block.bsums[i] = static_cast<int16_t>(zeros ? rng() : 0);
            for (int j = 0; j < 16; ++j) {
                block.qs[16 * i + j] = quant();
                block.bsums[i] = static_cast<int16_t>(block.bsums[i] + block.qs[16 * i + j]);
            }
        }
        std::memcpy(out, &block, sizeof block);
        return;
    }
    case Activations::f16: fill_block(rng, Weights::f16, format, out); return;
    case Activations::f32: fill_block(rng, Weights::f32, format, out); return;
    }
}

// --- ggml's one-row arithmetic ----------------------------------------------------------------------

template <class Block> Block read(const char * from) {
    Block block;
    std::memcpy(&block, from, sizeof block);
    return block;
}

using Lanes8 = std::array<float, 8>;

float sum_of(const Lanes8 & x) {
    float four[4];
    for (int i = 0; i < 4; ++i) {
        four[i] = x[i + 4] + x[i];
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
}

void add_block(Lanes8 & sums, float scale, const std::array<int32_t, 8> & lanes) {
    for (int l = 0; l < 8; ++l) {
        sums[l] = std::fmaf(scale, static_cast<float>(lanes[l]), sums[l]);
    }
}

struct Plain32 {
    std::array<int, 32> elements;
    float d = 0.0f;
    float m = 0.0f;
};

Plain32 plain_block(Weights weights, const char * from) {
    Plain32 out;
    const auto nibbles = [&](const uint8_t * qs) {
        for (int i = 0; i < 16; ++i) {
            out.elements[i] = qs[i] & 15;
            out.elements[i + 16] = qs[i] >> 4;
        }
    };
    if (weights == Weights::q4_0) {
        const auto block = read<BlockQ4_0>(from);
        out.d = from_half(block.d);
        nibbles(block.qs);
        for (int & x : out.elements) {
            x -= 8;
        }
    } else if (weights == Weights::q4_1) {
        const auto block = read<BlockQ4_1>(from);
        out.d = from_half(block.d);
        out.m = from_half(block.m);
        nibbles(block.qs);
    } else if (weights == Weights::q5_0) {
        const auto block = read<BlockQ5_0>(from);
        out.d = from_half(block.d);
        nibbles(block.qs);
        for (int i = 0; i < 32; ++i) {
            out.elements[i] += ((block.qh[i / 8] >> i % 8 & 1) != 0 ? 16 : 0) - 16;
        }
    } else {
        const auto block = read<BlockQ8_0>(from);
        out.d = from_half(block.d);
        std::copy(std::begin(block.qs), std::end(block.qs), out.elements.begin());
    }
    return out;
}

float plain_reference(Weights weights, const char * w, const char * x, int64_t n_blocks) {
    const Format format = format_of(weights, true);
    Lanes8 sums{};
    float mins = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const Plain32 block = plain_block(weights, w + b * format.block_bytes);
        const char * row = x + b * format.row_bytes;
        const bool has_min = weights == Weights::q4_1;
        const int8_t * qs = reinterpret_cast<const int8_t *>(row + (has_min ? 4 : 2));
        if (has_min) {
            mins = std::fmaf(block.m, from_half(read<BlockQ8_1>(row).s), mins);
        }
        std::array<int32_t, 8> lanes{};
        for (int i = 0; i < 32; ++i) {
            lanes[i / 4] += block.elements[i] * qs[i];
        }
        add_block(sums, block.d * from_half(read<uint16_t>(row)), lanes);
    }
    return weights == Weights::q4_1 ? sum_of(sums) + mins : sum_of(sums);
}

// Scale and min of the i-th of 8, in ggml's 12 bytes.
void scale_min(const uint8_t * q, int i, int & scale, int & min) {
    if (i < 4) {
        scale = q[i] & 63;
        min = q[i + 4] & 63;
    } else {
        scale = (q[i + 4] & 15) | (q[i - 4] >> 6) << 4;
        min = q[i + 4] >> 4 | (q[i] >> 6) << 4;
    }
}

float q4k_reference(const char * w, const char * x, int64_t n_blocks) {
    Lanes8 sums{};
    float mins[4] = {};
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ4K>(w + b * sizeof(BlockQ4K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        std::array<int32_t, 8> lanes{};
        int32_t min_lanes[4] = {};
        for (int e = 0; e < 8; ++e) {
            int scale = 0;
            int min = 0;
            scale_min(block.scales, e, scale, min);
            min_lanes[e / 2] += min * (row.bsums[2 * e] + row.bsums[2 * e + 1]);
            for (int i = 0; i < 32; ++i) {
                const uint8_t byte = block.qs[e / 2 * 32 + i];
                lanes[i / 4] += scale * (e % 2 == 0 ? byte & 15 : byte >> 4) * row.qs[32 * e + i];
            }
        }
        add_block(sums, row.d * from_half(block.d), lanes);
        for (int i = 0; i < 4; ++i) {
            mins[i] = std::fmaf(-row.d * from_half(block.dmin), static_cast<float>(min_lanes[i]), mins[i]);
        }
    }
    return sum_of(sums) + ((mins[0] + mins[2]) + (mins[1] + mins[3]));
}

float q6k_reference(const char * w, const char * x, int64_t n_blocks) {
    Lanes8 sums{};
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ6K>(w + b * sizeof(BlockQ6K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        std::array<int32_t, 8> lanes{};
        for (int i = 0; i < 256; ++i) {
            const int half = i / 128;
            const int part = i % 128 / 32; // which pair of high bits
            const int at = i % 32;
            const uint8_t low = block.ql[64 * half + 32 * (part % 2) + at];
            const int q = (part < 2 ? low & 15 : low >> 4) | (block.qh[32 * half + at] >> 2 * part & 3) << 4;
            lanes[at / 4] += block.scales[i / 16] * q * row.qs[i];
        }
        for (int l = 0; l < 16; ++l) { // elements are stored plus 32
            lanes[l / 2] -= 32 * row.bsums[l] * block.scales[l];
        }
        add_block(sums, row.d * from_half(block.d), lanes);
    }
    return sum_of(sums);
}

float q4_0x8_reference(const char * w, const char * x, int64_t n_blocks, int column) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ4_0x8>(w + b * sizeof(BlockQ4_0x8));
        const auto row = read<BlockQ8_0>(x + b * sizeof(BlockQ8_0));
        int32_t products = 0;
        for (int i = 0; i < 16; ++i) {
            const uint8_t byte = block.qs[i / 8 * 64 + 8 * column + i % 8];
            products += (static_cast<int8_t>(byte << 4) >> 4) * row.qs[i];
            products += (static_cast<int8_t>(byte) >> 4) * row.qs[i + 16];
        }
        sum = std::fmaf(static_cast<float>(products), from_half(block.d[column]) * from_half(row.d), sum);
    }
    return sum;
}

float q4kx8_reference(const char * w, const char * x, int64_t n_blocks, int column) {
    float sum = 0.0f;
    float mins = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ4Kx8>(w + b * sizeof(BlockQ4Kx8));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        int32_t products = 0;
        int32_t offset = 0;
        for (int e = 0; e < 8; ++e) {
            int scale = 0;
            int min = 0;
            scale_min(block.scales + 12 * e, column, scale, min);
            offset += min * (row.bsums[2 * e] + row.bsums[2 * e + 1]);
            for (int i = 0; i < 32; ++i) {
                const uint8_t byte = block.qs[e / 2 * 256 + i / 8 * 64 + 8 * column + i % 8];
                products += scale * (e % 2 == 0 ? byte & 15 : byte >> 4) * row.qs[32 * e + i];
            }
        }
        sum = std::fmaf(static_cast<float>(products), from_half(block.d[column]) * row.d, sum);
        mins = std::fmaf(static_cast<float>(offset), from_half(block.dmin[column]) * row.d, mins);
    }
    return sum - mins;
}

float float_reference(bool half, bool wide, const char * w, const char * x, int64_t n_blocks) {
    const int lanes = wide ? 16 : 8;
    const auto value = [&](const char * from, int64_t i) {
        return half ? from_half(read<uint16_t>(from + 2 * i)) : read<float>(from + 4 * i);
    };
    float sums[4][16] = {};
    for (int64_t i = 0; i < n_blocks * 4 * lanes; ++i) {
        float & sum = sums[i / lanes % 4][i % lanes];
        sum = std::fmaf(value(w, i), value(x, i), sum);
    }
    float all[16];
    for (int i = 0; i < lanes; ++i) {
        all[i] = (sums[0][i] + sums[2][i]) + (sums[1][i] + sums[3][i]);
    }
    if (!wide) {
        const float pairs[2] = {(all[0] + all[4]) + (all[1] + all[5]), (all[2] + all[6]) + (all[3] + all[7])};
        return pairs[0] + pairs[1];
    }
    for (int n = 8; n >= 2; n /= 2) {
        for (int i = 0; i < n; ++i) {
            all[i] = all[i + n] + all[i];
        }
    }
    return all[0] + all[1];
}

// --- cases ------------------------------------------------------------------------------------------

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
        case Weights::q6_k: return q6k_reference(from, row(r), n_blocks);
        case Weights::q4_0_repacked: return q4_0x8_reference(from, row(r), n_blocks, within);
        case Weights::q4_k_repacked: return q4kx8_reference(from, row(r), n_blocks, within);
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
        const bool is_float = weights == Weights::f16 || weights == Weights::f32;
        for (const bool wide : {false, true}) {
            CHECK(find(weights, Instructions::none, wide) == nullptr);
            CHECK_EQ(find(weights, Instructions::avx2, wide) != nullptr, built && !(is_float && wide));
            CHECK_EQ(find(weights, Instructions::avx2_vnni, wide) != nullptr, built && !(is_float && wide));
            CHECK_EQ(find(weights, Instructions::avx512_vnni, wide) != nullptr, built);
        }
        CHECK_EQ(find(weights, Instructions::avx512_vnni, false) == find(weights, Instructions::avx2, false),
                 !built || is_float);
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
