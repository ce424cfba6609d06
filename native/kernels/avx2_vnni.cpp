// Compiled for AVX2 and AVX-VNNI; see CMakeLists.txt.
#define MP_KERNEL_SET avx2_vnni_set
#define MP_AVX_VNNI

#include "attention.h"
#include "table.h"

namespace mp::kernels {

const Kernel avx2_vnni_kernels[n_weights] = MP_KERNEL_TABLE;

Attend avx2_vnni_attention(int head_size, CacheType type) { return MP_KERNEL_SET::find(head_size, type); }

} // namespace mp::kernels
