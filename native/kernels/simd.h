// The vector operations that kernels are written in: one width for AVX2 and one for AVX-512. A vector of Lanes256 holds
// one column's 8 lanes, one of Lanes512 two columns' 8 lanes each, for kernels whose sums have 8 lanes.
#pragma once

#include "tiles.h"

#include <immintrin.h>

namespace mp::kernels::MP_KERNEL_SET {

// Products of bytes are added as 32 bits at once; in AVX2 alone, pairs of them as 16 bits first.
#if defined(MP_AVX512_VNNI) || defined(MP_AVX_VNNI)
constexpr bool has_byte_dots = true;
#else
constexpr bool has_byte_dots = false;
#endif

MP_INLINE float from_half(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }

// The order of ggml's hsum_float_8.
MP_INLINE float sum_lanes(__m256 x) {
    __m128 sum = _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// [a's halves added | b's halves added]
MP_INLINE __m256 added_halves(__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// Lane i: sum_lanes(x[i]), for eight of them.
MP_INLINE __m256 lane_sums(const __m256 * x) {
    __m256 pairs[2];
    MP_UNROLL for (int i = 0; i < 2; ++i) {
        const __m256 a = added_halves(x[2 * i], x[2 * i + 4]);
        const __m256 b = added_halves(x[2 * i + 1], x[2 * i + 5]);
        pairs[i] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    }
    return _mm256_hadd_ps(pairs[0], pairs[1]);
}

MP_INLINE __m256i load32(const void * from) { return _mm256_loadu_si256(static_cast<const __m256i *>(from)); }

MP_INLINE __m256i twice16(const void * from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i *>(from)));
}

MP_INLINE void prefetch(const void * from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) {
        _mm_prefetch(static_cast<const char *>(from) + at, _MM_HINT_T1);
    }
}

struct Lanes256 {
    using Ints = __m256i;
    using Floats = __m256;
    static constexpr int columns = 1;
    static constexpr int registers = 16;

    static MP_INLINE Ints zero() { return _mm256_setzero_si256(); }
    static MP_INLINE Floats zero_floats() { return _mm256_setzero_ps(); }
    static MP_INLINE Ints join(__m256i a, __m256i) { return a; }
    static MP_INLINE Ints spread(__m256i rows) { return rows; }
    static MP_INLINE Floats join_halves(uint16_t a, uint16_t) { return _mm256_set1_ps(from_half(a)); }
    static MP_INLINE Floats set1(float x) { return _mm256_set1_ps(x); }
    static MP_INLINE Floats join_floats(float a, float) { return _mm256_set1_ps(a); }
    static MP_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
    static MP_INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static MP_INLINE Ints subtract(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
    static MP_INLINE Ints set1_bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
    // sum plus, in each 32-bit lane, the four products of unsigned and signed bytes.
    static MP_INLINE Ints dot(Ints sum, Ints unsigned_bytes, Ints signed_bytes) {
#if defined(MP_AVX_VNNI)
        return _mm256_dpbusd_avx_epi32(sum, unsigned_bytes, signed_bytes);
#elif defined(MP_AVX512_VNNI)
        return _mm256_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
#else
        const Ints pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
    }
    template <int Column> static MP_INLINE float sum_of(Floats x) { return sum_lanes(x); }
};

#if defined(MP_AVX512_VNNI)

struct Lanes512 {
    using Ints = __m512i;
    using Floats = __m512;
    static constexpr int columns = 2;
    static constexpr int registers = 32;

    static MP_INLINE Ints zero() { return _mm512_setzero_si512(); }
    static MP_INLINE Floats zero_floats() { return _mm512_setzero_ps(); }
    static MP_INLINE Ints join(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }
    static MP_INLINE Ints spread(__m256i rows) { return _mm512_broadcast_i64x4(rows); }
    static MP_INLINE Floats join_halves(uint16_t a, uint16_t b) {
        const __m128i both[] = {_mm_set1_epi16(static_cast<short>(a)), _mm_set1_epi16(static_cast<short>(b))};
        return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(both[0]), both[1], 1));
    }
    static MP_INLINE Floats set1(float x) { return _mm512_set1_ps(x); }
    static MP_INLINE Floats join_floats(float a, float b) {
        return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_set1_ps(a)), _mm256_set1_ps(b), 1);
    }
    static MP_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static MP_INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    static MP_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static MP_INLINE Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
    static MP_INLINE Ints set1_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
    static MP_INLINE Ints dot(Ints sum, Ints unsigned_bytes, Ints signed_bytes) {
        return _mm512_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
    }
    template <int Column> static MP_INLINE float sum_of(Floats x) {
        return sum_lanes(Column == 0 ? _mm512_castps512_ps256(x) : _mm512_extractf32x8_ps(x, 1));
    }
};

using Lanes = Lanes512;

#else

using Lanes = Lanes256;

#endif

} // namespace mp::kernels::MP_KERNEL_SET
