// F16 and F32: the order of ggml_vec_dot_f32 and _f16. Four vectors of float sums take turns along a row and are added
// at its end. One of the four at a time here, so that registers hold the sums of several columns and rows.
#pragma once

#if defined(MP_NEON)
#include "neon.h"
#else
#include "simd.h"
#endif

namespace mp::kernels::MP_KERNEL_SET {

#if defined(MP_NEON)
struct NeonFloats {
    using Floats = float32x4_t;
    static constexpr int lanes = 4;
    static constexpr int rows = 8; // that are multiplied at once, by registers
    static MP_INLINE Floats load(const float * x) { return vld1q_f32(x); }
    static MP_INLINE Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
    static MP_INLINE Floats zero() { return vdupq_n_f32(0.0f); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
    static MP_INLINE float sum(Floats x) { return vaddvq_f32(x); }
};
using FloatLanes = NeonFloats;
#elif defined(MP_AVX512_VNNI)
struct WideFloats {
    using Floats = __m512;
    static constexpr int lanes = 16;
    static constexpr int rows = 8;
    static MP_INLINE Floats load(const float * x) { return _mm512_loadu_ps(x); }
    static MP_INLINE Floats load(const uint16_t * x) { return _mm512_cvtph_ps(load32(x)); }
    static MP_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static MP_INLINE Floats zero() { return _mm512_setzero_ps(); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    // As _mm512_reduce_add_ps: halves upon halves.
    static MP_INLINE float sum(Floats x) {
        const __m256 half = _mm256_add_ps(_mm512_extractf32x8_ps(x, 1), _mm512_castps512_ps256(x));
        const __m128 quarter = _mm_add_ps(_mm256_extractf128_ps(half, 1), _mm256_castps256_ps128(half));
        const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
        return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
    }
};
using FloatLanes = WideFloats;
#else
struct NarrowFloats {
    using Floats = __m256;
    static constexpr int lanes = 8;
    static constexpr int rows = 4;
    static MP_INLINE Floats load(const float * x) { return _mm256_loadu_ps(x); }
    static MP_INLINE Floats load(const uint16_t * x) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(x)));
    }
    static MP_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
    static MP_INLINE Floats zero() { return _mm256_setzero_ps(); }
    static MP_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
    static MP_INLINE float sum(Floats x) {
        const __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 pairs = _mm_hadd_ps(half, half);
        return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
    }
};
using FloatLanes = NarrowFloats;
#endif

// Value: float, or uint16_t for half floats.
template <class Value> struct FloatRows {
    using Quantized = Value;
    static constexpr int block = 4 * FloatLanes::lanes;
    static constexpr int quantized_per_block = block;
    static constexpr int tile = FloatLanes::rows;
    static constexpr int columns = 3;

    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * block * sizeof(float); }

    static void pack_block(const Quantized * q, int row, int, char * out) {
        float * to = reinterpret_cast<float *>(out) + row * block;
        for (int i = 0; i < block; ++i) {
            if constexpr (sizeof(Value) == sizeof(float)) {
                to[i] = q[i];
            } else {
                to[i] = from_half(q[i]);
            }
        }
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * first = static_cast<const Value *>(weights) + column * n_blocks * block;
        const auto * rows = reinterpret_cast<const float *>(packed);
        switch (count) {
        case 3: return multiply_columns<N, 3>(first, n_blocks, rows, y + column, stride);
        case 2: return multiply_columns<N, 2>(first, n_blocks, rows, y + column, stride);
        default: return multiply_columns<N, 1>(first, n_blocks, rows, y + column, stride);
        }
    }

    template <int N, int C>
    static MP_INLINE void multiply_columns(const Value * first, int64_t n_blocks, const float * rows, float * y,
                                           size_t stride) {
        using Floats = FloatLanes::Floats;
        const int64_t k = n_blocks * block;
        const auto * next = reinterpret_cast<const char *>(first + C * k);
        constexpr size_t step = C * block * sizeof(Value) / 4;
        Floats parts[4][C][N];
        for (int part = 0; part < 4; ++part) {
            Floats sums[C][N];
            MP_UNROLL for (int c = 0; c < C; ++c) {
                MP_UNROLL for (int r = 0; r < N; ++r) { sums[c][r] = FloatLanes::zero(); }
            }
            const Value * x = first + part * FloatLanes::lanes;
            const float * z = rows + part * FloatLanes::lanes;
            for (int64_t b = 0; b < n_blocks; ++b, x += block, z += N * block) {
                // The next columns come in evenly while these are multiplied.
                prefetch(next + static_cast<size_t>(part * n_blocks + b) * step, step);
                Floats w[C];
                MP_UNROLL for (int c = 0; c < C; ++c) { w[c] = FloatLanes::load(x + c * k); }
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    const Floats row = FloatLanes::load(z + r * block);
                    MP_UNROLL for (int c = 0; c < C; ++c) {
                        sums[c][r] = FloatLanes::multiply_add(w[c], row, sums[c][r]);
                    }
                }
            }
            MP_UNROLL for (int c = 0; c < C; ++c) {
                MP_UNROLL for (int r = 0; r < N; ++r) { parts[part][c][r] = sums[c][r]; }
            }
        }
        MP_UNROLL for (int c = 0; c < C; ++c) {
            MP_UNROLL for (int r = 0; r < N; ++r) {
                y[static_cast<size_t>(r) * stride + c] = FloatLanes::sum(FloatLanes::add(
                    FloatLanes::add(parts[0][c][r], parts[2][c][r]), FloatLanes::add(parts[1][c][r], parts[3][c][r])));
            }
        }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
