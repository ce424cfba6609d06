// Vectors of columns as ggml's CPU_REPACK layouts have them: 8 side by side. One of AVX-512 holds 16 columns, of two
// groups of 8 (the second group is the first again where there is none), one of AVX2 holds 8. Within a vector columns
// stand in the order that unpacking leaves them in.
#pragma once

#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

#if defined(MP_AVX512_VNNI)

struct Wide {
    using Ints = __m512i;
    using Floats = __m512;
    static constexpr int groups = 2; // 8 columns each

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
    static MP_INLINE Ints look_up(const int8_t * table, Ints x) {
        const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), x);
    }
    static MP_INLINE Ints flip(Ints x) { return _mm512_xor_si512(x, _mm512_set1_epi8(8)); }
    static MP_INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static MP_INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static MP_INLINE Ints multiply_pairs(Ints sum, Ints a, Ints b) { return _mm512_dpwssd_epi32(sum, a, b); }
    // Sums of two products of bytes, of which the first are unsigned.
    static MP_INLINE Ints pair_products(Ints a, Ints b) { return _mm512_maddubs_epi16(a, b); }
    static MP_INLINE Ints add16(Ints a, Ints b) { return _mm512_add_epi16(a, b); }
    static MP_INLINE Ints and_bits(Ints a, int32_t b) { return _mm512_and_si512(a, set1(b)); }
    template <int N> static MP_INLINE Ints up(Ints x) { return _mm512_slli_epi32(x, N); }
    template <int N> static MP_INLINE Ints down(Ints x) { return _mm512_srli_epi32(x, N); }

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
    // Eight 16-bit values of each group, in the order of the elements.
    static MP_INLINE Ints words(const void * a, const void * b) {
        const __m256i both =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(a))),
                                    _mm_loadu_si128(static_cast<const __m128i *>(b)), 1);
        return _mm512_cvtepu16_epi32(_mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
    // Eight bytes of each group, in the order of the elements.
    static MP_INLINE __m128i bytes(uint64_t a, uint64_t b) {
        const __m128i order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
        return _mm_shuffle_epi8(_mm_set_epi64x(static_cast<long long>(b), static_cast<long long>(a)), order);
    }
    static MP_INLINE Ints scale(Ints sum, __m128i scales) {
        return _mm512_mullo_epi32(sum, _mm512_cvtepu8_epi32(scales));
    }
    // 2^(e - 128) for the bytes e.
    static MP_INLINE Floats powers(__m128i exponents) {
        const __m512i e = _mm512_cvtepu8_epi32(exponents);
        const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, set1(1)), 23);
        const __mmask16 tiny = _mm512_cmplt_epi32_mask(e, set1(2));
        return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, tiny, set1(0x00200000), e));
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
    static MP_INLINE Ints look_up(const int8_t * table, Ints x) { return _mm256_shuffle_epi8(twice16(table), x); }
    static MP_INLINE Ints flip(Ints x) { return _mm256_xor_si256(x, _mm256_set1_epi8(8)); }
    static MP_INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static MP_INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static MP_INLINE Ints multiply_pairs(Ints sum, Ints a, Ints b) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }
    static MP_INLINE Ints pair_products(Ints a, Ints b) { return _mm256_maddubs_epi16(a, b); }
    static MP_INLINE Ints add16(Ints a, Ints b) { return _mm256_add_epi16(a, b); }
    static MP_INLINE Ints and_bits(Ints a, int32_t b) { return _mm256_and_si256(a, set1(b)); }
    template <int N> static MP_INLINE Ints up(Ints x) { return _mm256_slli_epi32(x, N); }
    template <int N> static MP_INLINE Ints down(Ints x) { return _mm256_srli_epi32(x, N); }

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
    static MP_INLINE Ints words(const void * a, const void *) {
        const __m128i all = _mm_loadu_si128(static_cast<const __m128i *>(a));
        return _mm256_cvtepu16_epi32(_mm_shuffle_epi32(all, _MM_SHUFFLE(3, 1, 2, 0)));
    }
    static MP_INLINE __m128i bytes(uint64_t a, uint64_t) {
        const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1);
        return _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<long long>(a)), order);
    }
    static MP_INLINE Ints scale(Ints sum, __m128i scales) {
        return _mm256_mullo_epi32(sum, _mm256_cvtepu8_epi32(scales));
    }
    static MP_INLINE Floats powers(__m128i exponents) {
        const __m256i e = _mm256_cvtepu8_epi32(exponents);
        const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, set1(1)), 23);
        const __m256i tiny = _mm256_sllv_epi32(set1(0x00200000), e);
        return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(set1(2), e)));
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

} // namespace mp::kernels::MP_KERNEL_SET
