// Compiled for AVX-512 F, BW, DQ, VL and VNNI; see CMakeLists.txt.
#define MP_KERNEL_SET avx512_set
#define MP_AVX512_VNNI

#include "table.h"

namespace mp::kernels {

const Kernel avx512_kernels[n_weights] = MP_KERNEL_TABLE;

} // namespace mp::kernels
