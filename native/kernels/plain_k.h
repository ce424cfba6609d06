// Q4_K and Q6_K as the file has them, one column after another: the order of ggml_vec_dot_q4_K_q8_K and _q6_K_q8_K. A
// block of 256 elements gives 8 exact integer sums, which 8 float lanes take up block by block.
#pragma once

#include "blocks.h"
#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

// Sums of 16-bit products: unsigned times signed bytes in pairs, pairs times scales. All of it fits.
#if defined(MP_AVX512_VNNI)
using KLanes = __m512i;
MP_INLINE KLanes k_load(const void * from) { return _mm512_loadu_si512(from); }
MP_INLINE KLanes k_low(KLanes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
MP_INLINE KLanes k_high(KLanes x) { return k_low(_mm512_srli_epi16(x, 4)); }
MP_INLINE KLanes k_zero() { return _mm512_setzero_si512(); }
MP_INLINE KLanes k_add_scaled(KLanes sum, KLanes weights, KLanes activations, KLanes scales) {
    return _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(weights, activations), scales);
}
MP_INLINE __m256i k_fold(KLanes sum) {
    return _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
}
#else
using KLanes = __m256i;
MP_INLINE KLanes k_load(const void * from) { return load32(from); }
MP_INLINE KLanes k_low(KLanes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
MP_INLINE KLanes k_high(KLanes x) { return k_low(_mm256_srli_epi16(x, 4)); }
MP_INLINE KLanes k_zero() { return _mm256_setzero_si256(); }
MP_INLINE KLanes k_add_scaled(KLanes sum, KLanes weights, KLanes activations, KLanes scales) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, activations), scales));
}
MP_INLINE __m256i k_fold(KLanes sum) { return sum; }
#endif

constexpr int k_bytes = sizeof(KLanes);
constexpr int k_vectors = 256 / k_bytes; // of a block

// One block's elements in vectors, and the 16-bit scale of each pair of them.
struct KBlock {
    KLanes elements[k_vectors];
    KLanes scales[k_vectors];
};

// sum plus products of pairs of 16-bit values.
MP_INLINE __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
#if defined(MP_AVX_VNNI)
    return _mm256_dpwssd_avx_epi32(sum, a, b);
#elif defined(MP_AVX512_VNNI)
    return _mm256_dpwssd_epi32(sum, a, b);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

// Bytes that scale 16 elements each, in the order of the vectors' elements, as 16-bit values for pairs of elements.
MP_INLINE void spread_scales(__m128i bytes, KLanes * out) {
#if defined(MP_AVX512_VNNI)
    const __m512i all = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(bytes));
    const __m512i first = _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_setr_epi64x(0, 0, 0x0001000100010001, 0x0001000100010001)),
        _mm256_setr_epi64x(0x0002000200020002, 0x0002000200020002, 0x0003000300030003, 0x0003000300030003), 1);
    MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
        const __m512i which = _mm512_add_epi16(first, _mm512_set1_epi16(static_cast<short>(4 * v)));
        out[v] = _mm512_permutexvar_epi16(which, all);
    }
#else
    MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
        const long long one = 0x0101010101010101;
        const __m128i which = _mm_set_epi64x(one * (2 * v + 1), one * (2 * v));
        out[v] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, which));
    }
#endif
}

struct PlainQ4K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 4;

    // n x 256 activations in the order of the unpacked weights, n x 8 sums of 32 as 16 bits, room for 8 scales.
    static size_t packed_block_bytes(int n) { return whole_lines(static_cast<size_t>(n) * (256 + 16) + 4 * tile); }

    // Low nibbles of 32 bytes are an eighth of the block, high ones the next. A vector of 64 bytes has two such parts.
    static constexpr int parts = k_bytes / 32;
    static constexpr int eighth_at(int i) { // which eighth stands at the i-th 32 bytes
        const int vector = i / parts;
        return (vector / 2 * parts + i % parts) * 2 + vector % 2;
    }
    // Two bytes that say so to a shuffle.
    static constexpr long long twice(int i) { return 0x0101LL * eighth_at(i); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        for (int i = 0; i < 8; ++i) {
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + 256 * row + 32 * i),
                                load32(q->qs + 32 * eighth_at(i)));
        }
        int16_t * sums = reinterpret_cast<int16_t *>(out + 256 * n) + 8 * row;
        for (int i = 0; i < 8; ++i) {
            sums[i] = static_cast<int16_t>(q->bsums[2 * i] + q->bsums[2 * i + 1]);
        }
        reinterpret_cast<float *>(out + 272 * n)[row] = q->d;
    }

    // The 6-bit scales and mins of ggml's 12 bytes.
    static MP_INLINE void unpack_scales(const uint8_t * packed, uint64_t & scales, uint64_t & mins) {
        uint32_t u[3];
        __builtin_memcpy(u, packed, 12);
        const uint64_t high_scales = (u[2] & 0x0f0f0f0fu) | ((u[0] >> 6 & 0x03030303u) << 4);
        const uint64_t high_mins = (u[2] >> 4 & 0x0f0f0f0fu) | ((u[1] >> 6 & 0x03030303u) << 4);
        scales = (u[0] & 0x3f3f3f3fu) | high_scales << 32;
        mins = (u[1] & 0x3f3f3f3fu) | high_mins << 32;
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
        __m256 sums[N];
        __m128 mins[N];
        MP_UNROLL for (int r = 0; r < N; ++r) {
            sums[r] = _mm256_setzero_ps();
            mins[r] = _mm_setzero_ps();
        }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            const BlockQ4K & x = blocks[b];
            prefetch(&x + n_blocks, sizeof x);
            KBlock unpacked;
            MP_UNROLL for (int v = 0; v < k_vectors; v += 2) {
                const KLanes both = k_load(x.qs + v / 2 * k_bytes);
                unpacked.elements[v] = k_low(both);
                unpacked.elements[v + 1] = k_high(both);
            }
            uint64_t scales;
            uint64_t min_bytes;
            unpack_scales(x.scales, scales, min_bytes);
            constexpr long long order[2] = {twice(0) | twice(1) << 16 | twice(2) << 32 | twice(3) << 48,
                                            twice(4) | twice(5) << 16 | twice(6) << 32 | twice(7) << 48};
            spread_scales(
                _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<long long>(scales)), _mm_set_epi64x(order[1], order[0])),
                unpacked.scales);
            const __m128i min_values = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<long long>(min_bytes)));
            const __m256 row_d = _mm256_loadu_ps(reinterpret_cast<const float *>(packed + 272 * N));
            alignas(32) float d[tile];
            alignas(32) float dmin[tile];
            _mm256_store_ps(d, _mm256_mul_ps(row_d, _mm256_set1_ps(from_half(x.d))));
            _mm256_store_ps(dmin, _mm256_mul_ps(row_d, _mm256_set1_ps(-from_half(x.dmin))));
            MP_UNROLL for (int r = 0; r < N; ++r) {
                KLanes sum = k_zero();
                MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
                    sum = k_add_scaled(sum, unpacked.elements[v], k_load(packed + 256 * r + v * k_bytes),
                                       unpacked.scales[v]);
                }
                const auto * row_sums = reinterpret_cast<const __m128i *>(packed + 256 * N + 16 * r);
                const __m128i products = _mm_madd_epi16(min_values, _mm_loadu_si128(row_sums));
                mins[r] = _mm_fmadd_ps(_mm_set1_ps(dmin[r]), _mm_cvtepi32_ps(products), mins[r]);
                sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(d[r]), _mm256_cvtepi32_ps(k_fold(sum)), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            const __m128 halves = _mm_add_ps(mins[r], _mm_movehl_ps(mins[r], mins[r]));
            const __m128 min = _mm_add_ss(halves, _mm_movehdup_ps(halves));
            y[static_cast<size_t>(r) * stride] = sum_lanes(sums[r]) + _mm_cvtss_f32(min);
        }
    }
};

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
