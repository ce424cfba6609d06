// Q4_0 and Q8_0 in ggml's repacked layout: four columns side by side, in the order of its ggml_gemv_*_4x4_q8_0 and
// _4x8_q8_0. A lane is a column; each block adds one fused product to it.
#pragma once

#include "blocks.h"
#include "neon.h"

namespace mp::kernels::MP_KERNEL_SET {

struct RepackedFormatQ4_0 {
    using Block = BlockQ4_0x4;
    // Sixteen times the elements, nibbles where they are highest.
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        MP_UNROLL for (int i = 0; i < 4; ++i) {
            const int8x16_t both = load_bytes(block.qs + 16 * i);
            out[i] = vshlq_n_s8(both, 4);
            out[4 + i] = vandq_s8(both, vdupq_n_s8(static_cast<int8_t>(0xf0)));
        }
    }
    static MP_INLINE float32x4_t to_floats(int32x4_t products) { return vcvtq_n_f32_s32(products, 4); }
};

struct RepackedFormatQ8_0 {
    using Block = BlockQ8_0x4;
    static MP_INLINE void elements(const Block & block, int8x16_t * out) {
        MP_UNROLL for (int i = 0; i < 8; ++i) { out[i] = load_bytes(block.qs + 16 * i); }
    }
    static MP_INLINE float32x4_t to_floats(int32x4_t products) { return vcvtq_f32_s32(products); }
};

template <class Format> struct RepackedBlocks {
    using Quantized = BlockQ8_0;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 32;
    static constexpr int tile = 8;
    static constexpr int columns = 4;

    // n x 32 activations, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(packed_rows(n) * 32 + n * 4); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        pack_elements(q->qs, 32, row, n, out);
        reinterpret_cast<float *>(out + 32 * packed_rows(n))[row] = from_half(q->d);
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int, const char * packed, float * y,
                         size_t stride) {
        const auto * blocks = static_cast<const typename Format::Block *>(weights) + column / 4 * n_blocks;
        float32x4_t sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = vdupq_n_f32(0.0f); }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            prefetch(blocks + b + n_blocks, sizeof *blocks);
            int8x16_t elements[8];
            Format::elements(blocks[b], elements);
            int32x4_t products[packed_rows(N)];
            dot_columns<N, 32>(elements, packed, 32, 0, products);
            const float32x4_t d = four_halves(blocks[b].d);
            const float * row_d = reinterpret_cast<const float *>(packed + 32 * packed_rows(N));
            MP_UNROLL for (int r = 0; r < N; ++r) {
                sums[r] = vfmaq_f32(sums[r], Format::to_floats(products[r]), vmulq_n_f32(d, row_d[r]));
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { vst1q_f32(y + static_cast<size_t>(r) * stride + column, sums[r]); }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
