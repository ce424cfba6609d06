// Q4_0 and Q4_K in ggml's CPU_REPACK layout of 8 columns side by side: the order of ggml_gemv_q4_0_8x8_q8_0 and
// ggml_gemv_q4_K_8x8_q8_K. A float lane per column takes up exact integer sums block by block.
//
// A vector of AVX-512 holds 16 columns, of two groups of 8 (the second group is the first again where there is none);
// one of AVX2 holds 8. Within a vector columns stand in the order that unpacking leaves them in.
#pragma once

#include "blocks.h"
#include "plain_k.h"
#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

#if defined(MP_AVX512_VNNI)

struct Wide {
    using Ints = __m512i;
    using Floats = __m512;
    static constexpr int groups = 2; // of 8 columns

    static MP_INLINE Ints zero() { return _mm512_setzero_si512(); }
    static MP_INLINE Floats zero_floats() { return _mm512_setzero_ps(); }
    static MP_INLINE Ints set1(int32_t x) { return _mm512_set1_epi32(x); }
    static MP_INLINE Ints four_bytes(const void * from) {
        int32_t x;
        __builtin_memcpy(&x, from, 4);
        return _mm512_set1_epi32(x);
    }
    static MP_INLINE Floats set1(float x) { return _mm512_set1_ps(x); }
    static MP_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
    static MP_INLINE Ints low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
    static MP_INLINE Ints high_nibbles(Ints x) { return low_nibbles(_mm512_srli_epi16(x, 4)); }
    static MP_INLINE Ints flip(Ints x) { return _mm512_xor_si512(x, _mm512_set1_epi8(8)); }
    static MP_INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static MP_INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static MP_INLINE Ints multiply_pairs(Ints sum, Ints a, Ints b) { return _mm512_dpwssd_epi32(sum, a, b); }

    // 128 bytes of both groups: 16 elements of 8 columns each. out[i]: elements 4i..4i+3 of every column.
    static MP_INLINE void elements16(const uint8_t * a, const uint8_t * b, Ints * out) {
        MP_UNROLL for (int h = 0; h < 2; ++h) {
            const __m512 x = _mm512_castsi512_ps(_mm512_loadu_si512(a + 64 * h));
            const __m512 y = _mm512_castsi512_ps(_mm512_loadu_si512(b + 64 * h));
            out[2 * h] = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88));
            out[2 * h + 1] = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd));
        }
    }
    // Eight half floats of each group, in the order of the elements.
    static MP_INLINE Floats halves(const uint16_t * a, const uint16_t * b) {
        const __m256i both =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(a))),
                                    _mm_loadu_si128(reinterpret_cast<const __m128i *>(b)), 1);
        return _mm512_cvtph_ps(_mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
    // Eight bytes of each group, in the order of the elements.
    static MP_INLINE __m128i bytes(uint64_t a, uint64_t b) {
        const __m128i order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
        return _mm_shuffle_epi8(_mm_set_epi64x(static_cast<long long>(b), static_cast<long long>(a)), order);
    }
    static MP_INLINE Ints scale(Ints sum, __m128i scales) {
        return _mm512_mullo_epi32(sum, _mm512_cvtepu8_epi32(scales));
    }
    static MP_INLINE Ints pairs_of(__m128i even, __m128i odd) {
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(even, odd)),
                                                     _mm_unpackhi_epi8(even, odd), 1);
        return _mm512_cvtepu8_epi16(both);
    }
    static MP_INLINE void store(float * to, Floats x, bool both) {
        const __m512i order = _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
        _mm512_mask_storeu_ps(to, both ? 0xffff : 0xff, _mm512_permutexvar_ps(order, x));
    }
};

using Group = Wide;

#else

struct Narrow {
    using Ints = __m256i;
    using Floats = __m256;
    static constexpr int groups = 1;

    static MP_INLINE Ints zero() { return _mm256_setzero_si256(); }
    static MP_INLINE Floats zero_floats() { return _mm256_setzero_ps(); }
    static MP_INLINE Ints set1(int32_t x) { return _mm256_set1_epi32(x); }
    static MP_INLINE Ints four_bytes(const void * from) {
        int32_t x;
        __builtin_memcpy(&x, from, 4);
        return _mm256_set1_epi32(x);
    }
    static MP_INLINE Floats set1(float x) { return _mm256_set1_ps(x); }
    static MP_INLINE Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
    static MP_INLINE Ints low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
    static MP_INLINE Ints high_nibbles(Ints x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }
    static MP_INLINE Ints flip(Ints x) { return _mm256_xor_si256(x, _mm256_set1_epi8(8)); }
    static MP_INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static MP_INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static MP_INLINE Ints multiply_pairs(Ints sum, Ints a, Ints b) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }

    static MP_INLINE void elements16(const uint8_t * a, const uint8_t *, Ints * out) {
        MP_UNROLL for (int h = 0; h < 2; ++h) {
            const __m256 x = _mm256_castsi256_ps(load32(a + 64 * h));
            const __m256 y = _mm256_castsi256_ps(load32(a + 64 * h + 32));
            out[2 * h] = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88));
            out[2 * h + 1] = _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd));
        }
    }
    static MP_INLINE Floats halves(const uint16_t * a, const uint16_t *) {
        const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i *>(a));
        return _mm256_cvtph_ps(_mm_shuffle_epi32(all, _MM_SHUFFLE(3, 1, 2, 0)));
    }
    static MP_INLINE __m128i bytes(uint64_t a, uint64_t) {
        const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1);
        return _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<long long>(a)), order);
    }
    static MP_INLINE Ints scale(Ints sum, __m128i scales) {
        return _mm256_mullo_epi32(sum, _mm256_cvtepu8_epi32(scales));
    }
    static MP_INLINE Ints pairs_of(__m128i even, __m128i odd) {
        return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
    }
    static MP_INLINE void store(float * to, Floats x, bool) {
        const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
        _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(x, order));
    }
};

using Group = Narrow;

#endif

// sum + the products of 32 elements of every column (nibbles, 0..15) and the same 32 activations.
MP_INLINE Group::Ints dot32(Group::Ints sum, const Group::Ints * elements, const char * activations) {
#if defined(MP_AVX512_VNNI)
    MP_UNROLL for (int i = 0; i < 8; ++i) {
        sum = _mm512_dpbusd_epi32(sum, elements[i], Group::four_bytes(activations + 4 * i));
    }
    return sum;
#elif defined(MP_AVX_VNNI)
    MP_UNROLL for (int i = 0; i < 8; ++i) {
        sum = _mm256_dpbusd_avx_epi32(sum, elements[i], Group::four_bytes(activations + 4 * i));
    }
    return sum;
#else
    // Eight sums of two products of at most 15 x 127 fit 16 bits.
    __m256i pairs = _mm256_maddubs_epi16(elements[0], Group::four_bytes(activations));
    MP_UNROLL for (int i = 1; i < 8; ++i) {
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(elements[i], Group::four_bytes(activations + 4 * i)));
    }
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

struct RepackedQ4_0 {
    using Quantized = BlockQ8_0;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 32;
    static constexpr int tile = Group::groups == 2 ? 16 : 4;
    static constexpr int columns = 8 * Group::groups;

    // n x 32 activations, n scales, n sums times -8.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * 40; }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        int32_t sum = 0;
        for (int i = 0; i < 32; ++i) {
            sum += q->qs[i];
        }
        __builtin_memcpy(out + 32 * row, q->qs, 32);
        reinterpret_cast<float *>(out + 32 * n)[row] = from_half(q->d);
        reinterpret_cast<int32_t *>(out + 36 * n)[row] = -8 * sum;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * a = static_cast<const BlockQ4_0x8 *>(weights) + column / 8 * n_blocks;
        const auto * b = count > 8 ? a + n_blocks : a;
        const auto * next = reinterpret_cast<const char *>(a + Group::groups * n_blocks);
        constexpr size_t step = Group::groups * sizeof(BlockQ4_0x8);
        Group::Floats sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = Group::zero_floats(); }
        for (int64_t i = 0; i < n_blocks; ++i, packed += packed_block_bytes(N)) {
            prefetch(next + static_cast<size_t>(i) * step, step);
            Group::Ints both[4];
            Group::elements16(a[i].qs, b[i].qs, both);
            Group::Ints elements[8];
            MP_UNROLL for (int e = 0; e < 4; ++e) {
                both[e] = Group::flip(both[e]);
                elements[e] = Group::low_nibbles(both[e]);
            }
            MP_UNROLL for (int e = 0; e < 4; ++e) { elements[4 + e] = high_flipped(both[e]); }
            const Group::Floats d = Group::halves(a[i].d, b[i].d);
            const float * scales = reinterpret_cast<const float *>(packed + 32 * N);
            const int32_t * starts = reinterpret_cast<const int32_t *>(packed + 36 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const Group::Ints sum = dot32(Group::set1(starts[r]), elements, packed + 32 * r);
                sums[r] =
                    Group::multiply_add(Group::to_floats(sum), Group::multiply(d, Group::set1(scales[r])), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            Group::store(y + static_cast<size_t>(r) * stride + column, sums[r], count > 8);
        }
    }

    // The other nibble's sign bit is still as stored.
    static MP_INLINE Group::Ints high_flipped(Group::Ints x) { return Group::flip(Group::high_nibbles(x)); }
};

struct RepackedQ4K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = Group::groups == 2 ? 8 : 4;
    static constexpr int columns = 8 * Group::groups;

    // n x 256 activations, n x 8 sums of 32 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * (256 + 16 + 4); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        __builtin_memcpy(out + 256 * row, q->qs, 256);
        int16_t * sums = reinterpret_cast<int16_t *>(out + 256 * n) + 8 * row;
        for (int i = 0; i < 8; ++i) {
            sums[i] = static_cast<int16_t>(q->bsums[2 * i] + q->bsums[2 * i + 1]);
        }
        reinterpret_cast<float *>(out + 272 * n)[row] = q->d;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * a = static_cast<const BlockQ4Kx8 *>(weights) + column / 8 * n_blocks;
        const auto * b = count > 8 ? a + n_blocks : a;
        const auto * next = reinterpret_cast<const char *>(a + Group::groups * n_blocks);
        constexpr size_t step = Group::groups * sizeof(BlockQ4Kx8) / 4;
        Group::Floats sums[N];
        Group::Floats mins[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = mins[r] = Group::zero_floats(); }
        for (int64_t i = 0; i < n_blocks; ++i, packed += packed_block_bytes(N)) {
            __m128i scale_bytes[8];
            __m128i min_bytes[8];
            MP_UNROLL for (int e = 0; e < 8; ++e) {
                uint64_t scales[2];
                uint64_t lows[2];
                unpack_scales(a[i].scales + 12 * e, scales[0], lows[0]);
                unpack_scales(b[i].scales + 12 * e, scales[1], lows[1]);
                scale_bytes[e] = Group::bytes(scales[0], scales[1]);
                min_bytes[e] = Group::bytes(lows[0], lows[1]);
            }
            Group::Ints totals[N];
            MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = Group::zero(); }
            for (int quarter = 0; quarter < 4; ++quarter) {
                prefetch(next + static_cast<size_t>(4 * i + quarter) * step, step);
                Group::Ints both[8];
                Group::elements16(a[i].qs + 256 * quarter, b[i].qs + 256 * quarter, both);
                Group::elements16(a[i].qs + 256 * quarter + 128, b[i].qs + 256 * quarter + 128, both + 4);
                MP_UNROLL for (int half = 0; half < 2; ++half) {
                    Group::Ints elements[8];
                    MP_UNROLL for (int e = 0; e < 8; ++e) {
                        elements[e] = half == 0 ? Group::low_nibbles(both[e]) : Group::high_nibbles(both[e]);
                    }
                    const __m128i scales = scale_bytes[2 * quarter + half];
                    MP_UNROLL for (int r = 0; r < N; ++r) {
                        const char * row = packed + 256 * r + 64 * quarter + 32 * half;
                        totals[r] = Group::add(totals[r], Group::scale(dot32(Group::zero(), elements, row), scales));
                    }
                }
            }
            const Group::Floats d = Group::halves(a[i].d, b[i].d);
            const Group::Floats dmin = Group::halves(a[i].dmin, b[i].dmin);
            Group::Ints pairs[4];
            MP_UNROLL for (int e = 0; e < 4; ++e) {
                pairs[e] = Group::pairs_of(min_bytes[2 * e], min_bytes[2 * e + 1]);
            }
            const float * row_d = reinterpret_cast<const float *>(packed + 272 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                Group::Ints offset = Group::zero();
                MP_UNROLL for (int e = 0; e < 4; ++e) {
                    offset =
                        Group::multiply_pairs(offset, pairs[e], Group::four_bytes(packed + 256 * N + 16 * r + 4 * e));
                }
                const Group::Floats scale = Group::set1(row_d[r]);
                sums[r] = Group::multiply_add(Group::to_floats(totals[r]), Group::multiply(d, scale), sums[r]);
                mins[r] = Group::multiply_add(Group::to_floats(offset), Group::multiply(dmin, scale), mins[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            Group::store(y + static_cast<size_t>(r) * stride + column, Group::subtract(sums[r], mins[r]), count > 8);
        }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
