// Q4_0 and Q8_0 as the file has them, one column after another: the order of ggml_vec_dot_*_q8_0 for NEON. A block
// gives 4 exact integer sums; blocks of even and odd number have float lanes of their own, a last one without a partner
// is added up by itself.
#pragma once

#include "blocks.h"
#include "neon.h"

namespace mp::kernels::MP_KERNEL_SET {

struct PlainFormatQ4_0 {
    using Block = BlockQ4_0;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        const uint8x16_t both = vld1q_u8(block.qs);
        out[0] = vsubq_s8(low_nibbles(both), vdupq_n_s8(8));
        out[1] = vsubq_s8(high_nibbles(both), vdupq_n_s8(8));
    }
    static MP_INLINE float add_last(float sum, float products, float d, float row_d) {
        return __builtin_fmaf(products * d, row_d, sum);
    }
};

struct PlainFormatQ8_0 {
    using Block = BlockQ8_0;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        out[0] = load_bytes(block.qs);
        out[1] = load_bytes(block.qs + 16);
    }
    static MP_INLINE float add_last(float sum, float products, float d, float row_d) {
        return __builtin_fmaf(products, d * row_d, sum);
    }
};

template <class Format, bool Fused> struct PlainBlocks {
    using Quantized = BlockQ8_0;
    using Block = typename Format::Block;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 32;
    static constexpr int tile = 8;
    static constexpr int columns = 8;

    // n x 32 activations, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * 36; }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        __builtin_memcpy(out + 32 * row, q->qs, 32);
        reinterpret_cast<float *>(out + 32 * n)[row] = from_half(q->d);
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const Block *>(weights) + column * n_blocks;
        for (int c = 0; c < count; ++c, blocks += n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
        }
    }

    // The integer sums of a block with each row.
    template <int N> static MP_INLINE void dot_block(const Block & x, const char * packed, int32x4_t * products) {
        int8x16_t elements[2];
        Format::elements(x, elements);
        MP_UNROLL for (int r = 0; r < N; ++r) {
            products[r] = vdotq_s32(vdupq_n_s32(0), elements[0], load_bytes(packed + 32 * r));
            products[r] = vdotq_s32(products[r], elements[1], load_bytes(packed + 32 * r + 16));
        }
    }

    template <int N>
    static MP_INLINE void multiply_column(const Block * blocks, int64_t n_blocks, const char * packed, float * y,
                                          size_t stride) {
        float32x4_t sums[2][N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[0][r] = sums[1][r] = vdupq_n_f32(0.0f); }
        int32x4_t products[N];
        int64_t b = 0;
        for (; b + 1 < n_blocks; b += 2) {
            MP_UNROLL for (int odd = 0; odd < 2; ++odd, packed += packed_block_bytes(N)) {
                const Block & x = blocks[b + odd];
                prefetch(&x + n_blocks, sizeof x);
                dot_block<N>(x, packed, products);
                const float d = from_half(x.d);
                const float * row_d = reinterpret_cast<const float *>(packed + 32 * N);
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    sums[odd][r] =
                        multiply_add<Fused>(sums[odd][r], vcvtq_f32_s32(products[r]), vdupq_n_f32(d * row_d[r]));
                }
            }
        }
        float out[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { out[r] = vaddvq_f32(sums[0][r]) + vaddvq_f32(sums[1][r]); }
        if (b < n_blocks) {
            dot_block<N>(blocks[b], packed, products);
            const float * row_d = reinterpret_cast<const float *>(packed + 32 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const auto whole = static_cast<float>(vaddvq_s32(products[r]));
                out[r] = Format::add_last(out[r], whole, from_half(blocks[b].d), row_d[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { y[static_cast<size_t>(r) * stride] = out[r]; }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
