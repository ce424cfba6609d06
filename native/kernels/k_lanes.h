// What the kernels of the K-quants share: vectors of a block's elements, 32 of AVX2 or 64 of AVX-512, whose products
// are scaled as pairs of 16 bits. A block of 256 elements gives 8 exact integer sums.
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
MP_INLINE KLanes k_join(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }
MP_INLINE KLanes k_subtract(KLanes x, int value) {
    return _mm512_sub_epi8(x, _mm512_set1_epi8(static_cast<char>(value)));
}

// Signed bytes as their sizes and signs, and activations that take the signs over.
using KSigns = __mmask64;
MP_INLINE KLanes k_sizes(KLanes x) { return _mm512_abs_epi8(x); }
MP_INLINE KSigns k_signs(KLanes x) { return _mm512_movepi8_mask(x); }
MP_INLINE KLanes k_with_signs(KLanes x, KSigns signs) {
    return _mm512_mask_sub_epi8(x, signs, _mm512_setzero_si512(), x);
}

MP_INLINE KLanes k_twice32(const void * from) { return _mm512_broadcast_i64x4(load32(from)); }
// Pairs of bits of 32 bytes, 4 x 32 of them in the order of their places.
MP_INLINE void k_pairs_of_bits(const uint8_t * from, KLanes * out) {
    const __m512i all = k_twice32(from);
    const __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    const __m512i further = _mm512_add_epi16(down, _mm512_set1_epi16(4));
    out[0] = _mm512_and_si512(_mm512_srlv_epi16(all, down), _mm512_set1_epi8(3));
    out[1] = _mm512_and_si512(_mm512_srlv_epi16(all, further), _mm512_set1_epi8(3));
}
// The first 32 bytes are of one value, those behind of another.
MP_INLINE KLanes k_bytes_of(int first, int second) {
    return _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(first)), _mm256_set1_epi8(static_cast<char>(second)),
                              1);
}
// x with value added to the bytes where bits has one of those in mask.
MP_INLINE KLanes k_add_where(KLanes x, KLanes bits, KLanes mask, int value) {
    return _mm512_mask_add_epi8(x, _mm512_test_epi8_mask(bits, mask), x, _mm512_set1_epi8(static_cast<char>(value)));
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
MP_INLINE KLanes k_join(__m256i a, __m256i) { return a; }
MP_INLINE KLanes k_subtract(KLanes x, int value) {
    return _mm256_sub_epi8(x, _mm256_set1_epi8(static_cast<char>(value)));
}
using KSigns = __m256i;
MP_INLINE KLanes k_sizes(KLanes x) { return _mm256_abs_epi8(x); }
MP_INLINE KSigns k_signs(KLanes x) { return x; }
MP_INLINE KLanes k_with_signs(KLanes x, KSigns signs) { return _mm256_sign_epi8(x, signs); }
MP_INLINE void k_pairs_of_bits(const uint8_t * from, KLanes * out) {
    const __m256i all = load32(from);
    out[0] = _mm256_and_si256(all, _mm256_set1_epi8(3));
    out[1] = _mm256_and_si256(_mm256_srli_epi16(all, 2), _mm256_set1_epi8(3));
    out[2] = _mm256_and_si256(_mm256_srli_epi16(all, 4), _mm256_set1_epi8(3));
    out[3] = _mm256_and_si256(_mm256_srli_epi16(all, 6), _mm256_set1_epi8(3));
}
MP_INLINE KLanes k_twice32(const void * from) { return load32(from); }
MP_INLINE KLanes k_bytes_of(int first, int) { return _mm256_set1_epi8(static_cast<char>(first)); }
MP_INLINE KLanes k_add_where(KLanes x, KLanes bits, KLanes mask, int value) {
    const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, mask), mask);
    return _mm256_add_epi8(x, _mm256_and_si256(is_set, _mm256_set1_epi8(static_cast<char>(value))));
}
MP_INLINE __m256i k_fold(KLanes sum) { return sum; }
#endif

constexpr int k_bytes = sizeof(KLanes);
constexpr int k_vectors = 256 / k_bytes; // that a block takes
constexpr int k_parts = k_bytes / 32;    // eighths of a block that a vector holds

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

} // namespace mp::kernels::MP_KERNEL_SET
