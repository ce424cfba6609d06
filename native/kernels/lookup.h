// Nibbles, and the tables that some formats' nibbles are indices of.
#pragma once

#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

// The low nibbles of 16 bytes, then the high ones.
MP_INLINE __m256i nibbles(const uint8_t * bytes) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes));
    const __m256i spread = _mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1);
    return _mm256_and_si256(spread, _mm256_set1_epi8(15));
}

// The values of IQ4_NL and IQ4_XS, and twice those of 4-bit floats.
struct Steps {
    int8_t values[16];
};
constexpr Steps uneven_steps = {{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
constexpr Steps float_steps = {{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}};

constexpr Steps raised(Steps steps, int by) {
    for (int8_t & value : steps.values) {
        value = static_cast<int8_t>(value + by);
    }
    return steps;
}

// The values for 32 nibbles, of the low ones first.
MP_INLINE __m256i look_up(const Steps & steps, const uint8_t * bytes) {
    return _mm256_shuffle_epi8(twice16(steps.values), nibbles(bytes));
}

} // namespace mp::kernels::MP_KERNEL_SET
