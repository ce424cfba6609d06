// Compiled for what avx512.cpp is and AVX-512 BF16; see CMakeLists.txt. Where ggml was built for the same, its dot
// products of BF16 are those of this instruction, which rounds otherwise than products and sums of floats.
#define MP_KERNEL_SET avx512_bf16_set
#define MP_AVX512_VNNI

#include "table.h"

namespace mp::kernels {

namespace MP_KERNEL_SET {

struct BFloatPairs : BFloatValues {
    using Vector = __m512i;
    using Packed = Value;
    static constexpr int values = 32;
    static MP_INLINE Packed pack(Value x) { return x; }
    static MP_INLINE Vector load(const Value * x) { return _mm512_loadu_si512(x); }
    static MP_INLINE Vector load_packed(const Packed * x) { return _mm512_loadu_si512(x); }
    static MP_INLINE Floats multiply_add(Vector w, Vector x, Floats sum) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
    }
};

} // namespace MP_KERNEL_SET

const Kernel avx512_bf16_kernel = MP_KERNEL(FloatRows<MP_KERNEL_SET::BFloatPairs>, bf16, 1, 2);

} // namespace mp::kernels
