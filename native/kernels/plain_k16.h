// Q6_K as the file has it, one column after another: the order of ggml_vec_dot_q6_K_q8_K. Every 16 elements have a
// scale of their own.
#pragma once

#include "k_lanes.h"

namespace mp::kernels::MP_KERNEL_SET {

struct PlainQ6K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 16;

    // n x 256 activations, n x 16 sums of 16 as 16 bits, room for 8 scales; whole cache lines, as loads are.
    static size_t packed_block_bytes(int n) { return whole_lines(static_cast<size_t>(n) * (256 + 32) + 4 * tile); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        __builtin_memcpy(out + 256 * row, q->qs, 256);
        __builtin_memcpy(out + 256 * n + 32 * row, q->bsums, 32);
        reinterpret_cast<float *>(out + 288 * n)[row] = q->d;
    }

    // Half a block: 64 bytes of low nibbles and 32 of high pairs of bits give 4 x 32 elements, 0..63.
    static MP_INLINE void unpack_half(const uint8_t * ql, const uint8_t * qh, KLanes * out) {
#if defined(MP_AVX512_VNNI)
        const __m512i low = _mm512_loadu_si512(ql);
        const __m512i high = _mm512_broadcast_i64x4(load32(qh));
        const __m512i first_bits = _mm512_inserti64x4(_mm512_set1_epi8(3), _mm256_set1_epi8(12), 1);
        const __m512i last_bits = _mm512_inserti64x4(_mm512_set1_epi8(48), _mm256_set1_epi8(static_cast<char>(192)), 1);
        const __m512i up = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
        const __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
        out[0] = _mm512_or_si512(k_low(low), _mm512_sllv_epi16(_mm512_and_si512(high, first_bits), up));
        out[1] = _mm512_or_si512(k_high(low), _mm512_srlv_epi16(_mm512_and_si512(high, last_bits), down));
#else
        const __m256i low[2] = {load32(ql), load32(ql + 32)};
        const __m256i high = load32(qh);
        const __m256i two = _mm256_set1_epi8(3);
        const __m256i pairs[4] = {_mm256_and_si256(high, two), _mm256_and_si256(_mm256_srli_epi16(high, 2), two),
                                  _mm256_and_si256(_mm256_srli_epi16(high, 4), two),
                                  _mm256_and_si256(_mm256_srli_epi16(high, 6), two)};
        out[0] = _mm256_or_si256(k_low(low[0]), _mm256_slli_epi16(pairs[0], 4));
        out[1] = _mm256_or_si256(k_low(low[1]), _mm256_slli_epi16(pairs[1], 4));
        out[2] = _mm256_or_si256(k_high(low[0]), _mm256_slli_epi16(pairs[2], 4));
        out[3] = _mm256_or_si256(k_high(low[1]), _mm256_slli_epi16(pairs[3], 4));
#endif
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const BlockQ6K *>(weights) + column * n_blocks;
        for (int c = 0; c < count; ++c, blocks += n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
        }
    }

    template <int N>
    static MP_INLINE void multiply_column(const BlockQ6K * blocks, int64_t n_blocks, const char * packed, float * y,
                                          size_t stride) {
        __m256 sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = _mm256_setzero_ps(); }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            const BlockQ6K & x = blocks[b];
            prefetch(reinterpret_cast<const char *>(&x) + 2048, sizeof x);
            KBlock unpacked;
            unpack_half(x.ql, x.qh, unpacked.elements);
            unpack_half(x.ql + 64, x.qh + 32, unpacked.elements + k_vectors / 2);
            const __m128i scale_bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x.scales));
            const __m256i scales = _mm256_cvtepi8_epi16(scale_bytes);
            spread_scales(scale_bytes, unpacked.scales);
            // Elements are stored plus 32.
            const __m256i offsets = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16(scales, 5));
            alignas(32) float d[tile];
            _mm256_store_ps(d, _mm256_mul_ps(_mm256_loadu_ps(reinterpret_cast<const float *>(packed + 288 * N)),
                                             _mm256_set1_ps(from_half(x.d))));
            MP_UNROLL for (int r = 0; r < N; ++r) {
                KLanes sum = k_zero();
                MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
                    sum = k_add_scaled(sum, unpacked.elements[v], k_load(packed + 256 * r + v * k_bytes),
                                       unpacked.scales[v]);
                }
                const __m256i whole = add_pairs(k_fold(sum), load32(packed + 256 * N + 32 * r), offsets);
                sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(d[r]), _mm256_cvtepi32_ps(whole), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { y[static_cast<size_t>(r) * stride] = sum_lanes(sums[r]); }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
