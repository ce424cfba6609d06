// Compiled for AVX2 and AVX-VNNI; see CMakeLists.txt.
#define MP_KERNEL_SET avx2_vnni_set
#define MP_AVX_VNNI

#include "table.h"

namespace mp::kernels {

const Kernel avx2_vnni_kernels[n_weights] = MP_KERNEL_TABLE;

} // namespace mp::kernels
