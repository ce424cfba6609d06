// ggml's one-row arithmetic on ARM, scalar and in its order. What a compiler may fuse comes in both ways: order.fused.
// To be compiled without contraction.
#pragma once

#include "kernel_elements.h"

namespace mp::test::neon {

inline float add(bool fused, float sum, float a, float b) { return fused ? std::fmaf(a, b, sum) : sum + a * b; }

inline float sum_of(const std::array<float, 4> & x) { return (x[0] + x[1]) + (x[2] + x[3]); }

inline float plain_reference(Weights weights, const Format & format, bool fused, const char * w, const char * x,
                             int64_t n_blocks) {
    const bool has_min = weights == Weights::q4_1;
    std::array<float, 4> sums[2] = {};
    float mins = 0.0f;
    float ms[2] = {};
    float s[2] = {};
    for (int64_t b = 0; b < n_blocks; ++b) {
        const Plain32 block = plain_block(weights, w + b * format.block_bytes);
        const char * row = x + b * format.row_bytes;
        const int8_t * qs = reinterpret_cast<const int8_t *>(row + (has_min ? 4 : 2));
        const float d = block.d * from_half(read<uint16_t>(row));
        std::array<int32_t, 4> lanes{};
        for (int i = 0; i < 32; ++i) {
            lanes[i % 16 / 4] += block.elements[i] * qs[i];
        }
        for (int l = 0; l < 4; ++l) {
            sums[b % 2][l] = add(fused, sums[b % 2][l], static_cast<float>(lanes[l]), d);
        }
        if (has_min) {
            ms[b % 2] = block.m;
            s[b % 2] = from_half(read<BlockQ8_1>(row).s);
            mins += b % 2 == 1 ? std::fmaf(ms[0], s[0], ms[1] * s[1]) : 0.0f;
        }
    }
    const float sum = sum_of(sums[0]) + sum_of(sums[1]);
    return has_min ? sum + mins : sum;
}

inline float q4k_reference(const char * w, const char * x, int64_t n_blocks) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ4K>(w + b * sizeof(BlockQ4K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        int32_t products = 0;
        int32_t offset = 0;
        for (int e = 0; e < 8; ++e) {
            int scale = 0;
            int min = 0;
            scale_min(block.scales, e, scale, min);
            offset += min * (row.bsums[2 * e] + row.bsums[2 * e + 1]);
            for (int i = 0; i < 32; ++i) {
                const uint8_t byte = block.qs[e / 2 * 32 + i];
                products += scale * (e % 2 == 0 ? byte & 15 : byte >> 4) * row.qs[32 * e + i];
            }
        }
        sum = std::fmaf(-(row.d * from_half(block.dmin)), static_cast<float>(offset), sum);
        sum = std::fmaf(row.d * from_half(block.d), static_cast<float>(products), sum);
    }
    return sum;
}

// A column's element from its place in ggml's nibbles and pairs of bits, which are the same in one column and in eight
// side by side but for where a byte stands.
template <class Block, class At> int q6_element(const Block & block, int i, At at) {
    const int half = i / 128;
    const int part = i % 128 / 32;
    const uint8_t low = block.ql[at(64 * half + 32 * (part % 2) + i % 32)];
    const uint8_t high = block.qh[at(32 * half + i % 32)];
    return (part < 2 ? low & 15 : low >> 4) | (high >> 2 * part & 3) << 4;
}

inline float q6k_reference(const char * w, const char * x, int64_t n_blocks) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ6K>(w + b * sizeof(BlockQ6K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        int32_t products = 0;
        for (int i = 0; i < 256; ++i) {
            products += block.scales[i / 16] * (q6_element(block, i, [](int p) { return p; }) - 32) * row.qs[i];
        }
        sum = std::fmaf(from_half(block.d) * row.d, static_cast<float>(products), sum);
    }
    return sum;
}

// --- repacked: columns side by side, runs of `run` elements or bytes after each other -----------------

inline float q4_0_repacked_reference(int run, const char * w, const char * x, int64_t n_blocks, int column) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ4_0x4>(w + b * sizeof(BlockQ4_0x4));
        const auto row = read<BlockQ8_0>(x + b * sizeof(BlockQ8_0));
        int32_t products = 0;
        for (int i = 0; i < 16; ++i) {
            const uint8_t byte = block.qs[i / run * 4 * run + run * column + i % run];
            products += (static_cast<int8_t>(byte << 4) >> 4) * row.qs[i];
            products += (static_cast<int8_t>(byte) >> 4) * row.qs[i + 16];
        }
        sum = std::fmaf(static_cast<float>(products), from_half(block.d[column]) * from_half(row.d), sum);
    }
    return sum;
}

inline float q8_0_repacked_reference(int run, const char * w, const char * x, int64_t n_blocks, int column) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ8_0x4>(w + b * sizeof(BlockQ8_0x4));
        const auto row = read<BlockQ8_0>(x + b * sizeof(BlockQ8_0));
        int32_t products = 0;
        for (int i = 0; i < 32; ++i) {
            products += block.qs[i / run * 4 * run + run * column + i % run] * row.qs[i];
        }
        sum = std::fmaf(static_cast<float>(products), from_half(block.d[column]) * from_half(row.d), sum);
    }
    return sum;
}

inline float q4k_repacked_reference(int run, bool fused, const char * w, const char * x, int64_t n_blocks, int column) {
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ4Kx8>(w + b * sizeof(BlockQ4Kx8));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        int32_t offset = 0;
        int32_t products = 0;
        for (int e = 0; e < 8; ++e) {
            int scale = 0;
            int min = 0;
            scale_min(block.scales + 12 * e, column, scale, min);
            offset += min * (row.bsums[2 * e] + row.bsums[2 * e + 1]);
            for (int i = 0; i < 32; ++i) {
                const uint8_t byte = block.qs[e / 2 * 256 + i / run * 8 * run + run * column + i % run];
                products += scale * (e % 2 == 0 ? byte & 15 : byte >> 4) * row.qs[32 * e + i];
            }
            if (run == 8 || e % 2 == 1) { // an eighth of a block is added at a time, or a quarter
                sum = std::fmaf(from_half(block.d[column]) * row.d, static_cast<float>(products), sum);
                products = 0;
            }
        }
        sum = add(fused, sum, -static_cast<float>(offset), from_half(block.dmin[column]) * row.d);
    }
    return sum;
}

inline float q6k_repacked_reference(int run, bool fused, const char * w, const char * x, int64_t n_blocks, int column) {
    const auto at = [&](int p) { return p / run * 8 * run + run * column + p % run; };
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ6Kx8>(w + b * sizeof(BlockQ6Kx8));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        int32_t products = 0;
        for (int i = 0; i < 256; ++i) {
            products += block.scales[i / 16 * 8 + column] * (q6_element(block, i, at) - 32) * row.qs[i];
        }
        sum = add(fused, sum, static_cast<float>(products), from_half(block.d[column]) * row.d);
    }
    return sum;
}

inline float f32_reference(const char * w, const char * x, int64_t n_blocks) {
    std::array<float, 4> sums[4] = {};
    for (int64_t i = 0; i < 16 * n_blocks; ++i) {
        float & sum = sums[i / 4 % 4][i % 4];
        sum = std::fmaf(read<float>(w + 4 * i), read<float>(x + 4 * i), sum);
    }
    std::array<float, 4> all;
    for (int i = 0; i < 4; ++i) {
        all[i] = (sums[0][i] + sums[2][i]) + (sums[1][i] + sums[3][i]);
    }
    return sum_of(all);
}

// w: the group of columns; column: which of it.
inline float reference(Weights weights, const Order & order, const char * w, const char * x, int64_t n_blocks,
                       int column) {
    switch (weights) {
    case Weights::q4_k: return q4k_reference(w, x, n_blocks);
    case Weights::q6_k: return q6k_reference(w, x, n_blocks);
    case Weights::q4_0_repacked: return q4_0_repacked_reference(order.run(), w, x, n_blocks, column);
    case Weights::q8_0_repacked: return q8_0_repacked_reference(order.run(), w, x, n_blocks, column);
    case Weights::q4_k_repacked: return q4k_repacked_reference(order.run(), order.fused, w, x, n_blocks, column);
    case Weights::q6_k_repacked: return q6k_repacked_reference(order.run(), order.fused, w, x, n_blocks, column);
    case Weights::f32: return f32_reference(w, x, n_blocks);
    default: return plain_reference(weights, format_of(weights, order), order.fused, w, x, n_blocks);
    }
}

} // namespace mp::test::neon
