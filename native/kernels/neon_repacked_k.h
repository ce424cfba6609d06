// Q4_K and Q6_K in ggml's repacked layout: eight columns side by side, in the order of its ggml_gemv_*_8x4_q8_K and
// _8x8_q8_K. A lane is a column, four of them are computed at a time.
#pragma once

#include "blocks.h"
#include "neon.h"
#include "neon_k.h"

namespace mp::kernels::MP_KERNEL_SET {

template <bool Fused> struct RepackedQ4K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 8;

    // n x 256 activations, n x 8 sums of 32 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(packed_rows(n) * 256 + n * 20); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        pack_elements(q->qs, 256, row, n, out);
        out += 256 * packed_rows(n);
        pack_sums_of_32(*q, reinterpret_cast<int16_t *>(out) + 8 * row);
        reinterpret_cast<float *>(out + 16 * n)[row] = q->d;
    }

    // What is unpacked of a block for both groups of columns: by eighth and column.
    struct Scales {
        int16_t scales[8][8];
        int16_t mins[8][8];
    };

    static MP_INLINE void unpack(const BlockQ4Kx8 & x, Scales & out) {
        MP_UNROLL for (int e = 0; e < 8; ++e) {
            uint8x8_t scales;
            uint8x8_t mins;
            unpack_scales(x.scales + 12 * e, scales, mins);
            vst1q_s16(out.scales[e], vreinterpretq_s16_u16(vmovl_u8(scales)));
            vst1q_s16(out.mins[e], vreinterpretq_s16_u16(vmovl_u8(mins)));
        }
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int, const char * packed, float * y,
                         size_t stride) {
        const auto * blocks = static_cast<const BlockQ4Kx8 *>(weights) + column / 8 * n_blocks;
        float32x4_t sums[2][N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[0][r] = sums[1][r] = vdupq_n_f32(0.0f); }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            prefetch(blocks + b + n_blocks, sizeof *blocks);
            Scales unpacked;
            unpack(blocks[b], unpacked);
            for (int group = 0; group < 2; ++group) {
                add_block<N>(blocks[b], unpacked, group, packed, sums[group]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            vst1q_f32(y + static_cast<size_t>(r) * stride + column, sums[0][r]);
            vst1q_f32(y + static_cast<size_t>(r) * stride + column + 4, sums[1][r]);
        }
    }

    // Four columns of a block.
    template <int N>
    static MP_INLINE void add_block(const BlockQ4Kx8 & x, const Scales & unpacked, int group, const char * packed,
                                    float32x4_t * sums) {
        const auto * row_sums = reinterpret_cast<const int16_t *>(packed + 256 * packed_rows(N));
        const auto * row_d = reinterpret_cast<const float *>(row_sums + 8 * N);
        const float32x4_t d = four_halves(x.d + 4 * group);
        for (int quarter = 0; quarter < 4; ++quarter) {
            int8x16_t elements[2][8];
            MP_UNROLL for (int v = 0; v < 8; ++v) {
                const uint8x16_t both = vld1q_u8(x.qs + 256 * quarter + bytes_of_eight(v, group));
                elements[0][v] = low_nibbles(both);
                elements[1][v] = high_nibbles(both);
            }
            int32x4_t products[2][packed_rows(N)];
            int32x4_t scales[2];
            MP_UNROLL for (int half = 0; half < 2; ++half) {
                dot_columns<N, 32>(elements[half], packed, 256, 64 * quarter + 32 * half, products[half]);
                scales[half] = vmovl_s16(vld1_s16(unpacked.scales[2 * quarter + half] + 4 * group));
            }
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const float32x4_t scale = vmulq_n_f32(d, row_d[r]);
                const int32x4_t low = vmulq_s32(scales[0], products[0][r]);
                const int32x4_t high = vmulq_s32(scales[1], products[1][r]);
                if constexpr (beside == 1) { // ggml adds up a quarter in one layout, an eighth in the other
                    sums[r] = vfmaq_f32(sums[r], scale, vcvtq_f32_s32(vaddq_s32(low, high)));
                } else {
                    sums[r] = vfmaq_f32(sums[r], scale, vcvtq_f32_s32(low));
                    sums[r] = vfmaq_f32(sums[r], scale, vcvtq_f32_s32(high));
                }
            }
        }
        const float32x4_t dmin = four_halves(x.dmin + 4 * group);
        MP_UNROLL for (int r = 0; r < N; ++r) {
            int32x4_t offset = vdupq_n_s32(0);
            MP_UNROLL for (int e = 0; e < 8; ++e) {
                offset = vmlal_n_s16(offset, vld1_s16(unpacked.mins[e] + 4 * group), row_sums[8 * r + e]);
            }
            sums[r] = multiply_subtract<Fused>(sums[r], vcvtq_f32_s32(offset), vmulq_n_f32(dmin, row_d[r]));
        }
    }
};

template <bool Fused> struct RepackedQ6K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 8;

    // n x 256 activations, n x 16 sums of 16 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(packed_rows(n) * 256 + n * 36); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        pack_elements(q->qs, 256, row, n, out);
        out += 256 * packed_rows(n);
        __builtin_memcpy(out + 32 * row, q->bsums, 32);
        reinterpret_cast<float *>(out + 32 * n)[row] = q->d;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int, const char * packed, float * y,
                         size_t stride) {
        const auto * blocks = static_cast<const BlockQ6Kx8 *>(weights) + column / 8 * n_blocks;
        float32x4_t sums[2][N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[0][r] = sums[1][r] = vdupq_n_f32(0.0f); }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            prefetch(blocks + b + n_blocks, sizeof *blocks);
            for (int group = 0; group < 2; ++group) {
                add_block<N>(blocks[b], group, packed, sums[group]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            vst1q_f32(y + static_cast<size_t>(r) * stride + column, sums[0][r]);
            vst1q_f32(y + static_cast<size_t>(r) * stride + column + 4, sums[1][r]);
        }
    }

    // The i-th sixteenth's scales of four columns.
    static MP_INLINE int16x4_t scales_of(const BlockQ6Kx8 & x, int i, int group) {
        const int16x8_t all = vmovl_s8(vld1_s8(x.scales + 8 * i));
        return group == 0 ? vget_low_s16(all) : vget_high_s16(all);
    }

    // Four columns of a block.
    template <int N>
    static MP_INLINE void add_block(const BlockQ6Kx8 & x, int group, const char * packed, float32x4_t * sums) {
        int32x4_t totals[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = vdupq_n_s32(0); }
        for (int i = 0; i < 8; ++i) { // 16 elements in the low nibbles, and the 16 that are 64 on in the high ones
            const int half = i / 4;
            const int first = 128 * half + 16 * (i % 4);
            const uint8_t * ql = x.ql + 128 * i;
            const uint8_t * qh = x.qh + 256 * half + 128 * (i % 2);
            const int8x16_t down = vdupq_n_s8(i % 4 < 2 ? 0 : -2);
            int8x16_t elements[2][4];
            MP_UNROLL for (int v = 0; v < 4; ++v) {
                const uint8x16_t low = vld1q_u8(ql + bytes_of_eight(v, group));
                const uint8x16_t high = vshlq_u8(vld1q_u8(qh + bytes_of_eight(v, group)), down);
                elements[0][v] = vorrq_s8(low_nibbles(low), vreinterpretq_s8_u8(vandq_u8(vshlq_n_u8(high, 4), bits())));
                elements[1][v] = vorrq_s8(high_nibbles(low), vreinterpretq_s8_u8(vandq_u8(high, bits())));
            }
            MP_UNROLL for (int part = 0; part < 2; ++part) {
                int32x4_t products[packed_rows(N)];
                dot_columns<N, 16>(elements[part], packed, 256, first + 64 * part, products);
                const int32x4_t scales = vmovl_s16(scales_of(x, first / 16 + 4 * part, group));
                MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = vmlaq_s32(totals[r], products[r], scales); }
            }
        }
        const auto * row_sums = reinterpret_cast<const int16_t *>(packed + 256 * packed_rows(N));
        const auto * row_d = reinterpret_cast<const float *>(row_sums + 16 * N);
        const float32x4_t d = four_halves(x.d + 4 * group);
        MP_UNROLL for (int r = 0; r < N; ++r) {
            int32x4_t offset = vdupq_n_s32(0);
            MP_UNROLL for (int i = 0; i < 16; ++i) {
                offset = vmlal_n_s16(offset, scales_of(x, i, group), row_sums[16 * r + i]);
            }
            // Elements are stored plus 32.
            const float32x4_t whole = vcvtq_f32_s32(vsubq_s32(totals[r], vshlq_n_s32(offset, 5)));
            sums[r] = multiply_add<Fused>(sums[r], whole, vmulq_n_f32(d, row_d[r]));
        }
    }

    static MP_INLINE uint8x16_t bits() { return vdupq_n_u8(0x30); }
};

} // namespace mp::kernels::MP_KERNEL_SET
