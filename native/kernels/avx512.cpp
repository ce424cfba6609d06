// Compiled for AVX-512 F, BW, DQ, VL and VNNI; see CMakeLists.txt.
#define MP_KERNEL_SET avx512_set
#define MP_AVX512_VNNI

#include "attention.h"
#include "table.h"

namespace mp::kernels {

const Kernel avx512_kernels[n_weights] = MP_KERNEL_TABLE;

Attend avx512_attention(int head_size) {
    switch (head_size) {
    case 64: return MP_KERNEL_SET::attend_some<64>;
    case 128: return MP_KERNEL_SET::attend_some<128>;
    default: return nullptr;
    }
}

} // namespace mp::kernels
