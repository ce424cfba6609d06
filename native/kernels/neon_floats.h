// Vectors of floats on ARM, which ggml's sums of floats are taken in.
#pragma once

#include "neon.h"

namespace mp::kernels::MP_KERNEL_SET {

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

} // namespace mp::kernels::MP_KERNEL_SET
