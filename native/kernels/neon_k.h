// Q4_K and Q6_K as the file has them, one column after another: the order of ggml_vec_dot_q4_K_q8_K and _q6_K_q8_K for
// NEON. A block is one exact integer, which is added to a single float; compilers fuse that where they may.
#pragma once

#include "k_blocks.h"
#include "neon.h"

namespace mp::kernels::MP_KERNEL_SET {

MP_INLINE void unpack_scales(const uint8_t * packed, uint8x8_t & scales, uint8x8_t & mins) {
    uint64_t both[2];
    unpack_scales(packed, both[0], both[1]);
    scales = vcreate_u8(both[0]);
    mins = vcreate_u8(both[1]);
}

MP_INLINE void pack_sums_of_32(const BlockQ8K & q, int16_t * out) {
    vst1q_s16(out, vpaddq_s16(vld1q_s16(q.bsums), vld1q_s16(q.bsums + 8)));
}

MP_INLINE int32x4_t multiply_16(int32x4_t sum, int16x8_t a, int16x8_t b) {
    return vmlal_s16(vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b)), vget_high_s16(a), vget_high_s16(b));
}

struct PlainQ4K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 4;

    // n x 256 activations, n x 8 sums of 32 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * (256 + 16 + 4); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        __builtin_memcpy(out + 256 * row, q->qs, 256);
        pack_sums_of_32(*q, reinterpret_cast<int16_t *>(out + 256 * n) + 8 * row);
        reinterpret_cast<float *>(out + 272 * n)[row] = q->d;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const BlockQ4K *>(weights) + column * n_blocks;
        for (int c = 0; c < count; ++c, blocks += n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
        }
    }

    template <int N>
    static MP_INLINE void multiply_column(const BlockQ4K * blocks, int64_t n_blocks, const char * packed, float * y,
                                          size_t stride) {
        float sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = 0.0f; }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            const BlockQ4K & x = blocks[b];
            prefetch(&x + n_blocks, sizeof x);
            uint8x8_t scale_bytes;
            uint8x8_t min_bytes;
            unpack_scales(x.scales, scale_bytes, min_bytes);
            uint8_t scales[8];
            vst1_u8(scales, scale_bytes);
            const int16x8_t mins = vreinterpretq_s16_u16(vmovl_u8(min_bytes));
            int32x4_t totals[N];
            MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = vdupq_n_s32(0); }
            for (int quarter = 0; quarter < 4; ++quarter) {
                const uint8x16_t both[2] = {vld1q_u8(x.qs + 32 * quarter), vld1q_u8(x.qs + 32 * quarter + 16)};
                const int8x16_t elements[2][2] = {{low_nibbles(both[0]), low_nibbles(both[1])},
                                                  {high_nibbles(both[0]), high_nibbles(both[1])}};
                MP_UNROLL for (int half = 0; half < 2; ++half) {
                    const int32x4_t scale = vdupq_n_s32(scales[2 * quarter + half]);
                    MP_UNROLL for (int r = 0; r < N; ++r) {
                        const char * row = packed + 256 * r + 64 * quarter + 32 * half;
                        int32x4_t sum = vdotq_s32(vdupq_n_s32(0), elements[half][0], load_bytes(row));
                        sum = vdotq_s32(sum, elements[half][1], load_bytes(row + 16));
                        totals[r] = vmlaq_s32(totals[r], sum, scale);
                    }
                }
            }
            const float d = from_half(x.d);
            const float dmin = from_half(x.dmin);
            const auto * row_sums = reinterpret_cast<const int16_t *>(packed + 256 * N);
            const auto * row_d = reinterpret_cast<const float *>(packed + 272 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const int32x4_t offset = multiply_16(vdupq_n_s32(0), vld1q_s16(row_sums + 8 * r), mins);
                const float low = static_cast<float>(vaddvq_s32(offset));
                sums[r] = __builtin_fmaf(-(row_d[r] * dmin), low, sums[r]);
                sums[r] = __builtin_fmaf(row_d[r] * d, static_cast<float>(vaddvq_s32(totals[r])), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { y[static_cast<size_t>(r) * stride] = sums[r]; }
    }
};

struct PlainQ6K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 4;

    // n x 256 activations, n x 16 sums of 16 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * (256 + 32 + 4); }

    static void pack_block(const Quantized * q, int row, int n, char * out) { pack_with_sums_of_16(*q, row, n, out); }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const BlockQ6K *>(weights) + column * n_blocks;
        for (int c = 0; c < count; ++c, blocks += n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
        }
    }

    // The i-th eighth of a block, 0..63: ggml keeps four of them in 64 bytes of nibbles and 32 of pairs of bits.
    static MP_INLINE void unpack_eighth(const BlockQ6K & x, int i, int8x16_t * out) {
        const uint8_t * ql = x.ql + 64 * (i / 4) + 32 * (i % 2);
        const uint8_t * qh = x.qh + 32 * (i / 4);
        const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-2 * (i % 4)));
        MP_UNROLL for (int v = 0; v < 2; ++v) {
            const uint8x16_t low = vld1q_u8(ql + 16 * v);
            const uint8x16_t high = vandq_u8(vshlq_u8(vld1q_u8(qh + 16 * v), down), vdupq_n_u8(3));
            const int8x16_t nibbles = i % 4 < 2 ? low_nibbles(low) : high_nibbles(low);
            out[v] = vorrq_s8(nibbles, vreinterpretq_s8_u8(vshlq_n_u8(high, 4)));
        }
    }

    template <int N>
    static MP_INLINE void multiply_column(const BlockQ6K * blocks, int64_t n_blocks, const char * packed, float * y,
                                          size_t stride) {
        float sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = 0.0f; }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            const BlockQ6K & x = blocks[b];
            prefetch(&x + n_blocks, sizeof x);
            int32x4_t totals[N];
            MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = vdupq_n_s32(0); }
            MP_UNROLL for (int i = 0; i < 8; ++i) {
                int8x16_t elements[2];
                unpack_eighth(x, i, elements);
                const int32x4_t scales[2] = {vdupq_n_s32(x.scales[2 * i]), vdupq_n_s32(x.scales[2 * i + 1])};
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    MP_UNROLL for (int v = 0; v < 2; ++v) {
                        const int8x16_t row = load_bytes(packed + 256 * r + 32 * i + 16 * v);
                        const int32x4_t sum = vdotq_s32(vdupq_n_s32(0), elements[v], row);
                        totals[r] = vmlaq_s32(totals[r], sum, scales[v]);
                    }
                }
            }
            const int8x16_t scale_bytes = vld1q_s8(x.scales);
            const int16x8_t scales[2] = {vmovl_s8(vget_low_s8(scale_bytes)), vmovl_s8(vget_high_s8(scale_bytes))};
            const float d = from_half(x.d);
            const auto * row_sums = reinterpret_cast<const int16_t *>(packed + 256 * N);
            const auto * row_d = reinterpret_cast<const float *>(packed + 288 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                // Elements are stored plus 32.
                int32x4_t offset = multiply_16(vdupq_n_s32(0), vld1q_s16(row_sums + 16 * r), scales[0]);
                offset = multiply_16(offset, vld1q_s16(row_sums + 16 * r + 8), scales[1]);
                const int32_t whole = vaddvq_s32(vsubq_s32(totals[r], vshlq_n_s32(offset, 5)));
                sums[r] = __builtin_fmaf(d * row_d[r], static_cast<float>(whole), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { y[static_cast<size_t>(r) * stride] = sums[r]; }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
