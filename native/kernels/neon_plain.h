// Q4_0, Q4_1, Q5_0 and Q8_0 as the file has them, one column after another: the order of ggml_vec_dot_* for NEON. A
// block gives 4 exact integer sums; blocks of even and odd number have float lanes of their own, a last one without a
// partner is added up by itself.
#pragma once

#include "blocks.h"
#include "neon.h"

namespace mp::kernels::MP_KERNEL_SET {

struct PlainFormatQ4_0 {
    using Block = BlockQ4_0;
    using Quantized = BlockQ8_0;
    static constexpr bool has_min = false;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        const uint8x16_t both = vld1q_u8(block.qs);
        out[0] = vsubq_s8(low_nibbles(both), vdupq_n_s8(8));
        out[1] = vsubq_s8(high_nibbles(both), vdupq_n_s8(8));
    }
    static MP_INLINE float add_last(float sum, float products, float d, float row_d, float) {
        return __builtin_fmaf(products * d, row_d, sum);
    }
};

struct PlainFormatQ4_1 {
    using Block = BlockQ4_1;
    using Quantized = BlockQ8_1;
    static constexpr bool has_min = true;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        const uint8x16_t both = vld1q_u8(block.qs);
        out[0] = low_nibbles(both);
        out[1] = high_nibbles(both);
    }
    static MP_INLINE float add_last(float sum, float products, float d, float row_d, float min) {
        return sum + __builtin_fmaf(d * row_d, products, min);
    }
};

struct PlainFormatQ5_0 {
    using Block = BlockQ5_0;
    using Quantized = BlockQ8_0;
    static constexpr bool has_min = false;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        const uint8x16_t both = vld1q_u8(block.qs);
        const uint8x8_t bit_of = vcreate_u8(0x8040201008040201u);
        MP_UNROLL for (int i = 0; i < 2; ++i) {
            // Bytes whose fifth bit is clear become negative: the element less 16.
            const uint8x16_t fifth = vcombine_u8(vdup_n_u8(block.qh[2 * i]), vdup_n_u8(block.qh[2 * i + 1]));
            const uint8x16_t set = vtstq_u8(fifth, vcombine_u8(bit_of, bit_of));
            const uint8x16_t clear = vbicq_u8(vdupq_n_u8(0xf0), set);
            out[i] = vorrq_s8(i == 0 ? low_nibbles(both) : high_nibbles(both), vreinterpretq_s8_u8(clear));
        }
    }
    static MP_INLINE float add_last(float sum, float products, float d, float row_d, float) {
        return __builtin_fmaf(products, d * row_d, sum);
    }
};

struct PlainFormatQ8_0 {
    using Block = BlockQ8_0;
    using Quantized = BlockQ8_0;
    static constexpr bool has_min = false;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        out[0] = load_bytes(block.qs);
        out[1] = load_bytes(block.qs + 16);
    }
    static MP_INLINE float add_last(float sum, float products, float d, float row_d, float) {
        return __builtin_fmaf(products, d * row_d, sum);
    }
};

template <class Format, bool Fused> struct PlainBlocks {
    using Quantized = typename Format::Quantized;
    using Block = typename Format::Block;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 32;
    static constexpr int tile = 8;
    static constexpr int columns = 8;

    // n x 32 activations, n scales; with a min, n sums.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * (Format::has_min ? 40 : 36); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        __builtin_memcpy(out + 32 * row, q->qs, 32);
        float * scales = reinterpret_cast<float *>(out + 32 * n);
        scales[row] = from_half(q->d);
        if constexpr (Format::has_min) {
            scales[n + row] = from_half(q->s);
        }
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

    // A block's min times a row's sum; scales: the rows'.
    template <int N> static MP_INLINE float min_of(const Block & x, const float * scales, int row) {
        if constexpr (Format::has_min) {
            return from_half(x.m) * scales[N + row];
        } else {
            return 0.0f;
        }
    }

    // min plus those of two blocks, whose products ggml's compiler fuses with each other.
    template <int N>
    static MP_INLINE float add_mins(float min, const Block * two, const float * const * scales, int row) {
        if constexpr (Format::has_min) {
            return min + __builtin_fmaf(from_half(two[0].m), scales[0][N + row], min_of<N>(two[1], scales[1], row));
        } else {
            return min;
        }
    }

    template <int N>
    static MP_INLINE void multiply_column(const Block * blocks, int64_t n_blocks, const char * packed, float * y,
                                          size_t stride) {
        float32x4_t sums[2][N];
        float mins[N];
        MP_UNROLL for (int r = 0; r < N; ++r) {
            sums[0][r] = sums[1][r] = vdupq_n_f32(0.0f);
            mins[r] = 0.0f;
        }
        int32x4_t products[N];
        const auto scales_in = [](const char * from) { return reinterpret_cast<const float *>(from + 32 * N); };
        int64_t b = 0;
        for (; b + 1 < n_blocks; b += 2) {
            const float * const scales[2] = {scales_in(packed), scales_in(packed + packed_block_bytes(N))};
            MP_UNROLL for (int odd = 0; odd < 2; ++odd) {
                const Block & x = blocks[b + odd];
                prefetch(&x + n_blocks, sizeof x);
                dot_block<N>(x, packed, products);
                packed += packed_block_bytes(N);
                const float d = from_half(x.d);
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    const float32x4_t scale = vdupq_n_f32(d * scales[odd][r]);
                    sums[odd][r] = multiply_add<Fused>(sums[odd][r], vcvtq_f32_s32(products[r]), scale);
                }
            }
            MP_UNROLL for (int r = 0; r < N; ++r) { mins[r] = add_mins<N>(mins[r], blocks + b, scales, r); }
        }
        float out[N];
        MP_UNROLL for (int r = 0; r < N; ++r) {
            out[r] = vaddvq_f32(sums[0][r]) + vaddvq_f32(sums[1][r]);
            if constexpr (Format::has_min) {
                out[r] += mins[r];
            }
        }
        if (b < n_blocks) {
            dot_block<N>(blocks[b], packed, products);
            const float * scales = scales_in(packed);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const auto whole = static_cast<float>(vaddvq_s32(products[r]));
                const float min = min_of<N>(blocks[b], scales, r);
                out[r] = Format::add_last(out[r], whole, from_half(blocks[b].d), scales[r], min);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { y[static_cast<size_t>(r) * stride] = out[r]; }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
