// Compiled for AVX-512 F, BW, DQ, VL and VNNI; see CMakeLists.txt.
#define MP_KERNEL_SET avx512_set
#define MP_AVX512_VNNI

#include "attention.h"
#include "table.h"

namespace mp::kernels {

const Kernel avx512_kernels[n_weights] = MP_KERNEL_TABLE;

Attend avx512_attention(int head_size, CacheType type) { return MP_KERNEL_SET::find(head_size, type); }

} // namespace mp::kernels
