// Q4_0, Q4_1, Q5_0 and Q8_0 as the file has them, one column after another: the order of ggml_vec_dot_* for NEON. A
// block gives 4 exact integer sums; blocks of even and odd number have float lanes of their own.
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
};

struct PlainFormatQ8_0 {
    using Block = BlockQ8_0;
    using Quantized = BlockQ8_0;
    static constexpr bool has_min = false;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        out[0] = load_bytes(block.qs);
        out[1] = load_bytes(block.qs + 16);
    }
};

// Pairs of ggml's blocks. What ggml does with a last one alone is left to it: it is plain C, and GCC 12 for matrix
// products compiles that of Q5_0 wrong.
template <class Format, bool Fused> struct PlainBlocks {
    using Quantized = typename Format::Quantized;
    using Block = typename Format::Block;
    static constexpr int quantized_per_block = 2;
    static constexpr int block = 64;
    static constexpr int tile = 8;
    static constexpr int columns = 8;

    // Twice: n x 32 activations, n scales; with a min, n sums.
    static constexpr size_t half_bytes(int n) { return static_cast<size_t>(n) * (Format::has_min ? 40 : 36); }
    static size_t packed_block_bytes(int n) { return 2 * half_bytes(n); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        for (int odd = 0; odd < 2; ++odd, ++q, out += half_bytes(n)) {
            __builtin_memcpy(out + 32 * row, q->qs, 32);
            float * scales = reinterpret_cast<float *>(out + 32 * n);
            scales[row] = from_half(q->d);
            if constexpr (Format::has_min) {
                scales[n + row] = from_half(q->s);
            }
        }
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const Block *>(weights) + column * 2 * n_blocks;
        for (int c = 0; c < count; ++c, blocks += 2 * n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
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
        for (int64_t b = 0; b < n_blocks; ++b, blocks += 2, packed += 2 * half_bytes(N)) {
            prefetch(blocks + 2 * n_blocks, 2 * sizeof *blocks);
            MP_UNROLL for (int odd = 0; odd < 2; ++odd) {
                add_block<N>(blocks[odd], packed + odd * half_bytes(N), sums[odd]);
            }
            if constexpr (Format::has_min) {
                const auto * first = reinterpret_cast<const float *>(packed + 36 * N);
                const auto * second = reinterpret_cast<const float *>(packed + 36 * N + half_bytes(N));
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    // Compilers fuse the two products with each other.
                    const float min = from_half(blocks[1].m) * second[r];
                    mins[r] += __builtin_fmaf(from_half(blocks[0].m), first[r], min);
                }
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            const float sum = vaddvq_f32(sums[0][r]) + vaddvq_f32(sums[1][r]);
            y[static_cast<size_t>(r) * stride] = Format::has_min ? sum + mins[r] : sum;
        }
    }

    template <int N> static MP_INLINE void add_block(const Block & x, const char * packed, float32x4_t * sums) {
        int8x16_t elements[2];
        Format::elements(x, elements);
        const float d = from_half(x.d);
        const auto * scales = reinterpret_cast<const float *>(packed + 32 * N);
        MP_UNROLL for (int r = 0; r < N; ++r) {
            int32x4_t products = vdotq_s32(vdupq_n_s32(0), elements[0], load_bytes(packed + 32 * r));
            products = vdotq_s32(products, elements[1], load_bytes(packed + 32 * r + 16));
            sums[r] = multiply_add<Fused>(sums[r], vcvtq_f32_s32(products), vdupq_n_f32(d * scales[r]));
        }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
