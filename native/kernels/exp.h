// expf as the C library has it, many at a time, for numbers that are not above 0: in double precision, by a table of
// the 32nd powers of two and a polynomial of the third degree.
// Source of the algorithm: Szabolcs Nagy, "exp2f and expf", Arm Optimized Routines, which glibc and musl use.
#pragma once

#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

// 2^(i/32), with i taken out of the exponent's bits, to which the whole power of two is added.
alignas(64) constexpr uint64_t powers_of_two[32] = {
    0x3ff0000000000000u, 0x3fefd9b0d3158574u, 0x3fefb5586cf9890fu, 0x3fef9301d0125b51u, 0x3fef72b83c7d517bu,
    0x3fef54873168b9aau, 0x3fef387a6e756238u, 0x3fef1e9df51fdee1u, 0x3fef06fe0a31b715u, 0x3feef1a7373aa9cbu,
    0x3feedea64c123422u, 0x3feece086061892du, 0x3feebfdad5362a27u, 0x3feeb42b569d4f82u, 0x3feeab07dd485429u,
    0x3feea47eb03a5585u, 0x3feea09e667f3bcdu, 0x3fee9f75e8ec5f74u, 0x3feea11473eb0187u, 0x3feea589994cce13u,
    0x3feeace5422aa0dbu, 0x3feeb737b0cdc5e5u, 0x3feec49182a3f090u, 0x3feed503b23e255du, 0x3feee89f995ad3adu,
    0x3feeff76f2fb5e47u, 0x3fef199bdd85529cu, 0x3fef3720dcef9069u, 0x3fef5818dcfba487u, 0x3fef7c97337b9b5fu,
    0x3fefa4afa2a490dau, 0x3fefd0765b6e4540u,
};

#if defined(MP_AVX512_VNNI)

MP_INLINE __m256 exp_of_negative(__m256 x) {
    const __m512d units = _mm512_set1_pd(0x1.71547652b82fep+0 * 32); // 32nd powers of two per power of e
    const __m512d rounder = _mm512_set1_pd(0x1.8p+52);
    const __m512d exact = _mm512_cvtps_pd(_mm256_max_ps(x, _mm256_set1_ps(-104.0f))); // below, nothing is left
    const __m512d shifted = _mm512_fmadd_pd(units, exact, rounder);
    const __m512i whole = _mm512_castpd_si512(shifted);
    const __m512d rest = _mm512_fmsub_pd(units, exact, _mm512_sub_pd(shifted, rounder));

    const __m512i * table = reinterpret_cast<const __m512i *>(powers_of_two);
    const __m512i low = _mm512_permutex2var_epi64(table[0], whole, table[1]);
    const __m512i high = _mm512_permutex2var_epi64(table[2], whole, table[3]);
    const __mmask8 is_high = _mm512_test_epi64_mask(whole, _mm512_set1_epi64(16));
    const __m512i power = _mm512_add_epi64(_mm512_mask_blend_epi64(is_high, low, high), _mm512_slli_epi64(whole, 47));

    const __m512d a =
        _mm512_fmadd_pd(_mm512_set1_pd(0x1.c6af84b912394p-20), rest, _mm512_set1_pd(0x1.ebfce50fac4f3p-13));
    const __m512d b = _mm512_fmadd_pd(_mm512_set1_pd(0x1.62e42ff0c52d6p-6), rest, _mm512_set1_pd(1.0));
    const __m512d y = _mm512_fmadd_pd(a, _mm512_mul_pd(rest, rest), b);
    return _mm512_cvtpd_ps(_mm512_mul_pd(y, _mm512_castsi512_pd(power)));
}

#else

MP_INLINE __m128 exp_of_negative(__m128 x) {
    const __m256d units = _mm256_set1_pd(0x1.71547652b82fep+0 * 32);
    const __m256d rounder = _mm256_set1_pd(0x1.8p+52);
    const __m256d exact = _mm256_cvtps_pd(_mm_max_ps(x, _mm_set1_ps(-104.0f)));
    const __m256d shifted = _mm256_fmadd_pd(units, exact, rounder);
    const __m256i whole = _mm256_castpd_si256(shifted);
    const __m256d rest = _mm256_fmsub_pd(units, exact, _mm256_sub_pd(shifted, rounder));

    const __m256i index = _mm256_and_si256(whole, _mm256_set1_epi64x(31));
    const __m256i entry = _mm256_i64gather_epi64(reinterpret_cast<const long long *>(powers_of_two), index, 8);
    const __m256i power = _mm256_add_epi64(entry, _mm256_slli_epi64(whole, 47));

    const __m256d a =
        _mm256_fmadd_pd(_mm256_set1_pd(0x1.c6af84b912394p-20), rest, _mm256_set1_pd(0x1.ebfce50fac4f3p-13));
    const __m256d b = _mm256_fmadd_pd(_mm256_set1_pd(0x1.62e42ff0c52d6p-6), rest, _mm256_set1_pd(1.0));
    const __m256d y = _mm256_fmadd_pd(a, _mm256_mul_pd(rest, rest), b);
    return _mm256_cvtpd_ps(_mm256_mul_pd(y, _mm256_castsi256_pd(power)));
}

MP_INLINE __m256 exp_of_negative(__m256 x) {
    const __m128 low = exp_of_negative(_mm256_castps256_ps128(x));
    const __m128 high = exp_of_negative(_mm256_extractf128_ps(x, 1));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
}

#endif

} // namespace mp::kernels::MP_KERNEL_SET
