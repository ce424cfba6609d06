// Compiled for ARMv8.2 with dot and matrix products of bytes; see CMakeLists.txt.
#define MP_KERNEL_SET neon_i8mm_set
#define MP_NEON
#define MP_NEON_I8MM

#include "neon_table.h"

namespace mp::kernels {

const Kernel & neon_i8mm_kernel(Weights weights, bool fused) { return MP_KERNEL_SET::kernel_at(weights, fused); }

} // namespace mp::kernels
