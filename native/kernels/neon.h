// The vector operations that NEON kernels are written in, and the dot products of repacked columns with several rows.
#pragma once

#include "tiles.h"

#include <arm_neon.h>

namespace mp::kernels::MP_KERNEL_SET {

MP_INLINE float32x4_t four_halves(const uint16_t * from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }

MP_INLINE float from_half(uint16_t half) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}

MP_INLINE void prefetch(const void * from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(static_cast<const char *>(from) + at, 0, 2);
    }
}

// ggml's source has operations that one compiler makes a fused multiplication and another two roundings; the kernels
// come in both, and the check against ggml tells which one is its.
template <bool Fused> MP_INLINE float32x4_t multiply_add(float32x4_t sum, float32x4_t a, float32x4_t b) {
    return Fused ? vfmaq_f32(sum, a, b) : vaddq_f32(sum, vmulq_f32(a, b));
}

template <bool Fused> MP_INLINE float32x4_t multiply_subtract(float32x4_t sum, float32x4_t a, float32x4_t b) {
    return Fused ? vfmsq_f32(sum, a, b) : vsubq_f32(sum, vmulq_f32(a, b));
}

MP_INLINE int8x16_t low_nibbles(uint8x16_t x) { return vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15))); }
MP_INLINE int8x16_t high_nibbles(uint8x16_t x) { return vreinterpretq_s8_u8(vshrq_n_u8(x, 4)); }

MP_INLINE int8x16_t load_bytes(const void * from) { return vld1q_s8(static_cast<const int8_t *>(from)); }

// --- repacked columns -------------------------------------------------------------------------------

#if defined(MP_NEON_I8MM)
constexpr int beside = 2; // rows that are packed together, eight elements of one after eight of the other
#else
constexpr int beside = 1;
#endif

// Without its other row, the last one stands twice.
constexpr int packed_rows(int n) { return (n + beside - 1) / beside * beside; }

// Elements of the row-th of n rows that have so many each.
MP_INLINE void pack_elements(const int8_t * qs, int elements, int row, int n, char * out) {
    if (beside == 1) {
        __builtin_memcpy(out + elements * row, qs, static_cast<size_t>(elements));
        return;
    }
    char * to = out + elements * (row / 2 * 2) + 8 * (row % 2);
    for (int i = 0; i < elements; i += 8, to += 16) {
        __builtin_memcpy(to, qs + i, 8);
        if (row % 2 == 0 && row + 1 == n) {
            __builtin_memcpy(to + 8, qs + i, 8);
        }
    }
}

// Where the v-th 16 bytes of the first or second four of eight columns stand.
constexpr int bytes_of_eight(int v, int group) {
    return beside == 1 ? 32 * v + 16 * group : 64 * (v / 2) + 32 * group + 16 * (v % 2);
}

// Products of four columns, E elements of each in E / 4 vectors as ggml repacks them, and N packed rows of so many
// elements from the at-th on. sums: packed_rows(N) of them.
template <int N, int E>
MP_INLINE void dot_columns(const int8x16_t * columns, const char * rows, int elements, int at, int32x4_t * sums) {
#if defined(MP_NEON_I8MM)
    constexpr int n = packed_rows(N);
    MP_UNROLL for (int r = 0; r < n; r += 2) {
        int32x4_t first = vdupq_n_s32(0); // sums for two columns and two rows
        int32x4_t last = vdupq_n_s32(0);
        MP_UNROLL for (int i = 0; i < E / 8; ++i) {
            const int8x16_t both = load_bytes(rows + elements * r + 2 * at + 16 * i);
            first = vmmlaq_s32(first, columns[2 * i], both);
            last = vmmlaq_s32(last, columns[2 * i + 1], both);
        }
        sums[r] = vuzp1q_s32(first, last);
        sums[r + 1] = vuzp2q_s32(first, last);
    }
#else
    MP_UNROLL for (int r = 0; r < N; ++r) {
        int32x4_t sum = vdupq_n_s32(0);
        MP_UNROLL for (int i = 0; i < E / 16; ++i) {
            const int8x16_t row = load_bytes(rows + elements * r + at + 16 * i);
            sum = vdotq_laneq_s32(sum, columns[4 * i], row, 0);
            sum = vdotq_laneq_s32(sum, columns[4 * i + 1], row, 1);
            sum = vdotq_laneq_s32(sum, columns[4 * i + 2], row, 2);
            sum = vdotq_laneq_s32(sum, columns[4 * i + 3], row, 3);
        }
        sums[r] = sum;
    }
#endif
}

} // namespace mp::kernels::MP_KERNEL_SET
