// Compiled for AVX2, FMA and F16C; see CMakeLists.txt.
#define MP_KERNEL_SET avx2_set

#include "attention.h"
#include "table.h"

namespace mp::kernels {

const Kernel avx2_kernels[n_weights] = MP_KERNEL_TABLE;

Attend avx2_attention(int head_size, CacheType type) { return MP_KERNEL_SET::find(head_size, type); }

} // namespace mp::kernels
