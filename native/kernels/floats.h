// F16, F32 and BF16: the order of ggml_vec_dot_f32, _f16 and _bf16. Some vectors of float sums take turns along a row
// and are added at its end. One of them at a time here, so that registers hold the sums of several columns and rows.
#pragma once

#if defined(MP_NEON)
#include "neon_floats.h"
#else
#include "float_lanes.h"
#endif

namespace mp::kernels::MP_KERNEL_SET {

// What rows are made of: how values are packed and loaded, how many of them a vector has, how their products are added,
// how many sums take turns and how these are added. Packed as floats unless said otherwise.
struct FloatProducts {
    using Floats = FloatLanes::Floats;
    using Vector = Floats;
    using Packed = float;
    static constexpr int values = FloatLanes::lanes;
    static MP_INLINE Vector load_packed(const Packed * x) { return FloatLanes::load(x); }
    static MP_INLINE Floats multiply_add(Vector w, Vector x, Floats sum) { return FloatLanes::multiply_add(w, x, sum); }
};

struct FloatValues : FloatProducts {
    using Value = float;
    static constexpr int parts = 4;
    static MP_INLINE Packed pack(Value x) { return x; }
    static MP_INLINE Vector load(const Value * x) { return FloatLanes::load(x); }
    static MP_INLINE float sum(Floats a, Floats b, Floats c, Floats d) {
        return FloatLanes::sum(FloatLanes::add(FloatLanes::add(a, c), FloatLanes::add(b, d)));
    }
};

#if !defined(MP_NEON)
struct HalfValues : FloatValues {
    using Value = uint16_t;
    static MP_INLINE Packed pack(Value x) { return from_half(x); }
    static MP_INLINE Vector load(const Value * x) { return FloatLanes::load(x); }
};

struct BFloatValues : FloatProducts {
    using Value = uint16_t;
    static MP_INLINE Packed pack(Value x) {
        const uint32_t bits = static_cast<uint32_t>(x) << 16;
        float value;
        __builtin_memcpy(&value, &bits, 4);
        return value;
    }
    static MP_INLINE Vector load(const Value * x) { return FloatLanes::load_bfloats(x); }
#if defined(MP_AVX512_VNNI)
    static constexpr int parts = 2;
    static MP_INLINE float sum(Floats a, Floats b) {
        return static_cast<float>(static_cast<double>(FloatLanes::sum(a)) + static_cast<double>(FloatLanes::sum(b)));
    }
#else
    static constexpr int parts = 4;
    static MP_INLINE float sum(Floats a, Floats b, Floats c, Floats d) {
        return sum_lanes(_mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d)));
    }
#endif
};

#endif

template <class Values> struct FloatRows {
    using Value = typename Values::Value;
    using Packed = typename Values::Packed;
    using Quantized = Value;
    static constexpr int n_parts = Values::parts;
    static constexpr int block = n_parts * Values::values;
    static constexpr int quantized_per_block = block;
    static constexpr int tile = FloatLanes::rows;
    static constexpr int columns = 3;

    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * block * sizeof(Packed); }

    static void pack_block(const Quantized * q, int row, int, char * out) {
        auto * to = reinterpret_cast<Packed *>(out) + row * block;
        for (int i = 0; i < block; ++i) {
            to[i] = Values::pack(q[i]);
        }
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * first = static_cast<const Value *>(weights) + column * n_blocks * block;
        const auto * rows = reinterpret_cast<const Packed *>(packed);
        switch (count) {
        case 3: return multiply_columns<N, 3>(first, n_blocks, rows, y + column, stride);
        case 2: return multiply_columns<N, 2>(first, n_blocks, rows, y + column, stride);
        default: return multiply_columns<N, 1>(first, n_blocks, rows, y + column, stride);
        }
    }

    template <int N, int C>
    static MP_INLINE void multiply_columns(const Value * first, int64_t n_blocks, const Packed * rows, float * y,
                                           size_t stride) {
        using Floats = FloatLanes::Floats;
        const int64_t k = n_blocks * block;
        const auto * next = reinterpret_cast<const char *>(first + C * k);
        constexpr size_t step = C * block * sizeof(Value) / n_parts;
        Floats parts[n_parts][C][N];
        for (int part = 0; part < n_parts; ++part) {
            Floats sums[C][N];
            MP_UNROLL for (int c = 0; c < C; ++c) {
                MP_UNROLL for (int r = 0; r < N; ++r) { sums[c][r] = FloatLanes::zero(); }
            }
            const Value * x = first + part * Values::values;
            const Packed * z = rows + part * Values::values;
            for (int64_t b = 0; b < n_blocks; ++b, x += block, z += N * block) {
                // The next columns come in evenly while these are multiplied.
                prefetch(next + static_cast<size_t>(part * n_blocks + b) * step, step);
                typename Values::Vector w[C];
                MP_UNROLL for (int c = 0; c < C; ++c) { w[c] = Values::load(x + c * k); }
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    const typename Values::Vector row = Values::load_packed(z + r * block);
                    MP_UNROLL for (int c = 0; c < C; ++c) { sums[c][r] = Values::multiply_add(w[c], row, sums[c][r]); }
                }
            }
            MP_UNROLL for (int c = 0; c < C; ++c) {
                MP_UNROLL for (int r = 0; r < N; ++r) { parts[part][c][r] = sums[c][r]; }
            }
        }
        MP_UNROLL for (int c = 0; c < C; ++c) {
            MP_UNROLL for (int r = 0; r < N; ++r) {
                float & out = y[static_cast<size_t>(r) * stride + c];
                if constexpr (n_parts == 2) {
                    out = Values::sum(parts[0][c][r], parts[1][c][r]);
                } else {
                    out = Values::sum(parts[0][c][r], parts[1][c][r], parts[2][c][r], parts[3][c][r]);
                }
            }
        }
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
