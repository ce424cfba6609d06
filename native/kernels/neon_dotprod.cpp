// Compiled for ARMv8.2 with dot products of bytes; see CMakeLists.txt.
#define MP_KERNEL_SET neon_dotprod_set
#define MP_NEON

#include "neon_table.h"

namespace mp::kernels {

const Kernel & neon_dotprod_kernel(Weights weights, bool fused) { return MP_KERNEL_SET::kernel_at(weights, fused); }

} // namespace mp::kernels
