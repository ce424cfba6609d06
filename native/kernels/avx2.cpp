// Compiled for AVX2, FMA and F16C; see CMakeLists.txt.
#define MP_KERNEL_SET avx2_set

#include "table.h"

namespace mp::kernels {

const Kernel avx2_kernels[n_weights] = MP_KERNEL_TABLE;

} // namespace mp::kernels
