// Vectors of floats as wide as ggml's own: 16 lanes where it was built for AVX-512, 8 where for AVX2. Its sums of half
// floats and floats are lane by lane, so that their order goes by the width.
#pragma once

#include "exp.h"
#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

#if defined(MP_AVX512_VNNI)

struct WideFloats {
    using Floats = __m512;
    using Mask = __mmask16;
    static constexpr int lanes = 16;
    static constexpr int registers = 32;
    static constexpr int rows = 8; // that are multiplied at once

    static MP_INLINE Floats load(const float * x) { return _mm512_loadu_ps(x); }
    static MP_INLINE Floats load(const uint16_t * x) { return _mm512_cvtph_ps(load32(x)); }
    static MP_INLINE Floats load_bfloats(const uint16_t * x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load32(x)), 16));
    }
    static MP_INLINE Floats load(const int8_t * x) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(x))));
    }
    static MP_INLINE void store(float * to, Floats x) { _mm512_storeu_ps(to, x); }
    static MP_INLINE Floats zero() { return _mm512_setzero_ps(); }
    static MP_INLINE Floats set1(float x) { return _mm512_set1_ps(x); }
    static MP_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static MP_INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static MP_INLINE Floats through_half(Floats x) {
        return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    static MP_INLINE Floats exp_of_negative(Floats x) {
        const __m256 low = MP_KERNEL_SET::exp_of_negative(_mm512_castps512_ps256(x));
        const __m256 high = MP_KERNEL_SET::exp_of_negative(_mm512_extractf32x8_ps(x, 1));
        return join(low, high);
    }
    static MP_INLINE Mask differ(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
    static MP_INLINE Mask greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
    static MP_INLINE unsigned bits(Mask mask) { return mask; }
    static MP_INLINE Floats select(Mask mask, Floats yes, Floats no) { return _mm512_mask_blend_ps(mask, no, yes); }

    // As _mm512_reduce_add_ps: halves upon halves.
    static MP_INLINE float sum(Floats x) {
        const __m256 half = _mm256_add_ps(_mm512_extractf32x8_ps(x, 1), _mm512_castps512_ps256(x));
        const __m128 quarter = _mm_add_ps(_mm256_extractf128_ps(half, 1), _mm256_castps256_ps128(half));
        const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
        return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
    }

    // Lane i: sum(x[i]).
    static MP_INLINE Floats sums(const Floats (&x)[lanes]) {
        __m512 halves[8];
        MP_UNROLL for (int i = 0; i < 8; ++i) {
            halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xee),
                                      _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x44));
        }
        __m512 quarters[4];
        MP_UNROLL for (int i = 0; i < 4; ++i) {
            quarters[i] = _mm512_add_ps(_mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0xdd),
                                        _mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0x88));
        }
        __m512 pairs[2];
        MP_UNROLL for (int i = 0; i < 2; ++i) {
            const __m512d a = _mm512_castps_pd(quarters[2 * i]);
            const __m512d b = _mm512_castps_pd(quarters[2 * i + 1]);
            pairs[i] =
                _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
        }
        const __m512 all =
            _mm512_add_ps(_mm512_shuffle_ps(pairs[0], pairs[1], 0x88), _mm512_shuffle_ps(pairs[0], pairs[1], 0xdd));
        // Lane 4 j + p has the sum of vector 4 p + j.
        return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), all);
    }

    // Lane i: sum_lanes(x[i]).
    static MP_INLINE Floats sums_of_eight(const __m256 (&x)[lanes]) { return join(lane_sums(x), lane_sums(x + 8)); }

private:
    static MP_INLINE Floats join(__m256 low, __m256 high) {
        return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    }
};
using FloatLanes = WideFloats;

#else

struct NarrowFloats {
    using Floats = __m256;
    using Mask = __m256;
    static constexpr int lanes = 8;
    static constexpr int registers = 16;
    static constexpr int rows = 4;

    static MP_INLINE Floats load(const float * x) { return _mm256_loadu_ps(x); }
    static MP_INLINE Floats load(const uint16_t * x) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(x)));
    }
    static MP_INLINE Floats load_bfloats(const uint16_t * x) {
        const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(all), 16));
    }
    static MP_INLINE Floats load(const int8_t * x) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(x))));
    }
    static MP_INLINE void store(float * to, Floats x) { _mm256_storeu_ps(to, x); }
    static MP_INLINE Floats zero() { return _mm256_setzero_ps(); }
    static MP_INLINE Floats set1(float x) { return _mm256_set1_ps(x); }
    static MP_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
    static MP_INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static MP_INLINE Floats through_half(Floats x) {
        return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
    static MP_INLINE Floats exp_of_negative(Floats x) { return MP_KERNEL_SET::exp_of_negative(x); }
    static MP_INLINE Mask differ(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
    static MP_INLINE Mask greater(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
    static MP_INLINE unsigned bits(Mask mask) { return static_cast<unsigned>(_mm256_movemask_ps(mask)); }
    static MP_INLINE Floats select(Mask mask, Floats yes, Floats no) { return _mm256_blendv_ps(no, yes, mask); }

    static MP_INLINE float sum(Floats x) {
        const __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 pairs = _mm_hadd_ps(half, half);
        return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
    }

    // Lane i: sum(x[i]).
    static MP_INLINE Floats sums(const Floats (&x)[lanes]) {
        __m256 halves[4];
        MP_UNROLL for (int i = 0; i < 4; ++i) { halves[i] = added_halves(x[i], x[4 + i]); }
        return _mm256_hadd_ps(_mm256_hadd_ps(halves[0], halves[1]), _mm256_hadd_ps(halves[2], halves[3]));
    }

    // Lane i: sum_lanes(x[i]).
    static MP_INLINE Floats sums_of_eight(const __m256 (&x)[lanes]) { return lane_sums(x); }
};
using FloatLanes = NarrowFloats;

#endif

} // namespace mp::kernels::MP_KERNEL_SET
