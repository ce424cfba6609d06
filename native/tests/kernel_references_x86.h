// ggml's one-row arithmetic on x86, scalar and in its order.
#pragma once

#include "kernel_elements.h"

#include <algorithm>
#include <array>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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
    const bool has_min = weights == Weights::q4_1 || weights == Weights::q5_1;
    Lanes8 sums{};
    float mins = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const Plain32 block = plain_block(weights, w + b * format.block_bytes);
        const char * row = x + b * format.row_bytes;
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
    return has_min ? sum_of(sums) + mins : sum_of(sums);
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

// --- nibbles that are indices

constexpr int iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

inline float half_power(uint8_t exponent) { return std::ldexp(1.0f, exponent - 128); }

// Two sums take up blocks in turn.
inline float lookup_reference(Weights weights, const char * w, const char * x, int64_t n_blocks) {
    const bool is_mxfp4 = weights == Weights::mxfp4;
    const size_t block_bytes = is_mxfp4 ? sizeof(BlockMXFP4) : sizeof(BlockIQ4NL);
    const int * values = is_mxfp4 ? fp4_values : iq4_values;
    Lanes8 sums[2] = {};
    for (int64_t b = 0; b < 2 * n_blocks; ++b, w += block_bytes) {
        const auto row = read<BlockQ8_0>(x + b * sizeof(BlockQ8_0));
        const float d = is_mxfp4 ? half_power(read<BlockMXFP4>(w).e) : from_half(read<BlockIQ4NL>(w).d);
        std::array<int32_t, 8> lanes{};
        for (int i = 0; i < 16; ++i) {
            const auto byte = read<uint8_t>(w + block_bytes - 16 + i);
            lanes[i / 4] += values[byte & 15] * row.qs[i];
            lanes[4 + i / 4] += values[byte >> 4] * row.qs[i + 16];
        }
        add_block(sums[b % 2], from_half(row.d) * d, lanes);
    }
    for (int l = 0; l < 8; ++l) {
        sums[0][l] += sums[1][l];
    }
    return sum_of(sums[0]);
}

inline float lookup_x8_reference(Weights weights, const char * w, const char * x, int64_t n_blocks, int column) {
    const bool is_mxfp4 = weights == Weights::mxfp4_repacked;
    const size_t block_bytes = is_mxfp4 ? sizeof(BlockMXFP4x8) : sizeof(BlockIQ4NLx8);
    const int * values = is_mxfp4 ? fp4_values : iq4_values;
    float sum = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b, w += block_bytes) {
        const auto row = read<BlockQ8_0>(x + b * sizeof(BlockQ8_0));
        const float d = is_mxfp4 ? half_power(read<uint8_t>(w + column)) : from_half(read<uint16_t>(w + 2 * column));
        int32_t products = 0;
        for (int i = 0; i < 16; ++i) {
            const auto byte = read<uint8_t>(w + block_bytes - 128 + i / 8 * 64 + 8 * column + i % 8);
            products += values[byte & 15] * row.qs[i] + values[byte >> 4] * row.qs[i + 16];
        }
        sum = std::fmaf(static_cast<float>(products), d * from_half(row.d), sum);
    }
    return sum;
}

inline float q5k_reference(const char * w, const char * x, int64_t n_blocks) {
    Lanes8 sums{};
    float mins = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ5K>(w + b * sizeof(BlockQ5K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        std::array<int32_t, 8> lanes{};
        int32_t offset = 0;
        for (int e = 0; e < 8; ++e) {
            int scale = 0;
            int min = 0;
            scale_min(block.scales, e, scale, min);
            offset += min * (row.bsums[2 * e] + row.bsums[2 * e + 1]);
            for (int i = 0; i < 32; ++i) {
                const uint8_t byte = block.qs[e / 2 * 32 + i];
                const int q = (e % 2 == 0 ? byte & 15 : byte >> 4) | (block.qh[i] >> e & 1) << 4;
                lanes[i / 4] += scale * q * row.qs[32 * e + i];
            }
        }
        add_block(sums, row.d * from_half(block.d), lanes);
        mins = std::fmaf(-row.d * from_half(block.dmin), static_cast<float>(offset), mins);
    }
    return sum_of(sums) + mins;
}

inline float q2k_reference(const char * w, const char * x, int64_t n_blocks) {
    Lanes8 sums{};
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ2K>(w + b * sizeof(BlockQ2K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        std::array<int32_t, 8> lanes{};
        std::array<int32_t, 8> offsets{};
        for (int i = 0; i < 256; ++i) {
            const int q = block.qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
            lanes[i % 32 / 4] += (block.scales[i / 16] & 15) * q * row.qs[i];
        }
        for (int l = 0; l < 16; ++l) {
            offsets[l / 2] += (block.scales[l] >> 4) * row.bsums[l];
        }
        add_block(sums, -row.d * from_half(block.dmin), offsets);
        add_block(sums, row.d * from_half(block.d), lanes);
    }
    return sum_of(sums);
}

inline float q2kx8_reference(const char * w, const char * x, int64_t n_blocks, int column) {
    float sum = 0.0f;
    float mins = 0.0f;
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ2Kx8>(w + b * sizeof(BlockQ2Kx8));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        int32_t products = 0;
        int32_t offset = 0;
        for (int s = 0; s < 16; ++s) { // each 16 elements
            const uint8_t both = block.scales[s / 2 * 16 + 2 * column + s % 2];
            offset += (both >> 4) * row.bsums[s];
            for (int i = 16 * s; i < 16 * s + 16; ++i) {
                const int byte = i / 128 * 32 + i % 32; // of the column
                const int q = block.qs[byte / 8 * 64 + 8 * column + byte % 8] >> i % 128 / 32 * 2 & 3;
                products += (both & 15) * q * row.qs[i];
            }
        }
        sum = std::fmaf(static_cast<float>(products), from_half(block.d[column]) * row.d, sum);
        mins = std::fmaf(static_cast<float>(offset), from_half(block.dmin[column]) * row.d, mins);
    }
    return sum - mins;
}

inline float q3k_reference(const char * w, const char * x, int64_t n_blocks) {
    Lanes8 sums{};
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockQ3K>(w + b * sizeof(BlockQ3K));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        std::array<int32_t, 8> lanes{};
        for (int i = 0; i < 256; ++i) {
            const int s = i / 16;
            const int low = s < 8 ? block.scales[s] & 15 : block.scales[s - 8] >> 4;
            const int scale = (low | (block.scales[8 + s % 4] >> s / 4 * 2 & 3) << 4) - 32;
            const int q = block.qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
            lanes[i % 32 / 4] += scale * (q - ((block.hmask[i % 32] >> i / 32 & 1) != 0 ? 0 : 4)) * row.qs[i];
        }
        add_block(sums, row.d * from_half(block.d), lanes);
    }
    return sum_of(sums);
}

inline float iq4xs_reference(const char * w, const char * x, int64_t n_blocks) {
    Lanes8 sums{};
    for (int64_t b = 0; b < n_blocks; ++b) {
        const auto block = read<BlockIQ4XS>(w + b * sizeof(BlockIQ4XS));
        const auto row = read<BlockQ8K>(x + b * sizeof(BlockQ8K));
        std::array<int32_t, 8> lanes{};
        for (int i = 0; i < 256; ++i) {
            const int e = i / 32;
            const int low = block.scales_l[e / 2] >> e % 2 * 4 & 15;
            const int scale = (low | (block.scales_h >> 2 * e & 3) << 4) - 32;
            const uint8_t byte = block.qs[16 * e + i % 16];
            lanes[i % 32 / 4] += scale * iq4_values[i % 32 < 16 ? byte & 15 : byte >> 4] * row.qs[i];
        }
        add_block(sums, row.d * from_half(block.d), lanes);
    }
    return sum_of(sums);
}

inline float bf16_reference(bool wide, const char * w, const char * x, int64_t n_blocks) {
    const auto value = [](const char * from, int64_t i) {
        const uint32_t bits = static_cast<uint32_t>(read<uint16_t>(from + 2 * i)) << 16;
        return read<float>(reinterpret_cast<const char *>(&bits));
    };
    const int lanes = wide ? 16 : 8;
    float sums[4][16] = {};
    for (int64_t i = 0; i < 32 * n_blocks; ++i) {
        float & sum = sums[i % 32 / lanes][i % lanes];
        sum = std::fmaf(value(w, i), value(x, i), sum);
    }
    if (!wide) {
        Lanes8 all;
        for (int l = 0; l < 8; ++l) {
            all[l] = (sums[0][l] + sums[2][l]) + (sums[1][l] + sums[3][l]);
        }
        return sum_of(all);
    }
    for (float * part : {sums[0], sums[1]}) {
        for (int n = 8; n >= 1; n /= 2) {
            for (int i = 0; i < n; ++i) {
                part[i] = part[i + n] + part[i];
            }
        }
    }
    return static_cast<float>(static_cast<double>(sums[0][0]) + static_cast<double>(sums[1][0]));
}

#if defined(__x86_64__)
// Of the instruction itself: what it makes of sums that are no numbers of their own is written nowhere else.
__attribute__((target("avx512f,avx512bf16"))) inline float bf16_pairs_reference(const char * w, const char * x,
                                                                                int64_t n_blocks) {
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t b = 0; b < n_blocks; ++b) {
        sums[b % 2] = _mm512_dpbf16_ps(sums[b % 2], reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + 64 * b)),
                                       reinterpret_cast<__m512bh>(_mm512_loadu_si512(x + 64 * b)));
    }
    return static_cast<float>(static_cast<double>(_mm512_reduce_add_ps(sums[0])) +
                              static_cast<double>(_mm512_reduce_add_ps(sums[1])));
}
#else
inline float bf16_pairs_reference(const char *, const char *, int64_t) { return 0.0f; }
#endif

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
    case Weights::q5_k: return q5k_reference(w, x, n_blocks);
    case Weights::q2_k: return q2k_reference(w, x, n_blocks);
    case Weights::q2_k_repacked: return q2kx8_reference(w, x, n_blocks, column);
    case Weights::q3_k: return q3k_reference(w, x, n_blocks);
    case Weights::iq4_xs: return iq4xs_reference(w, x, n_blocks);
    case Weights::mxfp4:
    case Weights::iq4_nl: return lookup_reference(weights, w, x, n_blocks);
    case Weights::mxfp4_repacked:
    case Weights::iq4_nl_repacked: return lookup_x8_reference(weights, w, x, n_blocks, column);
    case Weights::bf16:
        return order.fused ? bf16_pairs_reference(w, x, n_blocks) : bf16_reference(order.wide_floats, w, x, n_blocks);
    case Weights::q4_0_repacked: return q4_0x8_reference(w, x, n_blocks, column);
    case Weights::q4_k_repacked: return q4kx8_reference(w, x, n_blocks, column);
    case Weights::f16: return float_reference(true, order.wide_floats, w, x, n_blocks);
    case Weights::f32: return float_reference(false, order.wide_floats, w, x, n_blocks);
    default: return plain_reference(weights, w, x, n_blocks);
    }
}

} // namespace mp::test::x86
