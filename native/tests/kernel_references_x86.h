// ggml's one-row arithmetic on x86, scalar and in its order.
#pragma once

#include "kernel_elements.h"

#include <algorithm>
#include <array>

namespace mp::test::x86 {

using Lanes8 = std::array<float, 8>;

inline float sum_of(const Lanes8 & x) {
    float four[4];
    for (int i = 0; i < 4; ++i) {
        four[i] = x[i + 4] + x[i];
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
}

inline void add_block(Lanes8 & sums, float scale, const std::array<int32_t, 8> & lanes) {
    for (int l = 0; l < 8; ++l) {
        sums[l] = std::fmaf(scale, static_cast<float>(lanes[l]), sums[l]);
    }
}

inline float plain_reference(Weights weights, const char * w, const char * x, int64_t n_blocks) {
    const Format format = format_of(weights, {Instructions::avx2});
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

inline float q4k_reference(const char * w, const char * x, int64_t n_blocks) {
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

inline float q6k_reference(const char * w, const char * x, int64_t n_blocks) {
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

inline float q4_0x8_reference(const char * w, const char * x, int64_t n_blocks, int column) {
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

inline float q4kx8_reference(const char * w, const char * x, int64_t n_blocks, int column) {
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

inline float float_reference(bool half, bool wide, const char * w, const char * x, int64_t n_blocks) {
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

// w: the group of columns; column: which of it.
inline float reference(Weights weights, const Order & order, const char * w, const char * x, int64_t n_blocks,
                       int column) {
    switch (weights) {
    case Weights::q4_k: return q4k_reference(w, x, n_blocks);
    case Weights::q6_k: return q6k_reference(w, x, n_blocks);
    case Weights::q4_0_repacked: return q4_0x8_reference(w, x, n_blocks, column);
    case Weights::q4_k_repacked: return q4kx8_reference(w, x, n_blocks, column);
    case Weights::f16: return float_reference(true, order.wide_floats, w, x, n_blocks);
    case Weights::f32: return float_reference(false, order.wide_floats, w, x, n_blocks);
    default: return plain_reference(weights, w, x, n_blocks);
    }
}

} // namespace mp::test::x86
