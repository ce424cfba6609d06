// The kernels of one instruction set, in the order of Weights.
#include "floats.h"
#include "lookup_blocks.h"
#include "plain_blocks.h"
#include "plain_k.h"
#include "plain_k16.h"
#include "repacked.h"
#include "repacked_k.h"

namespace mp::kernels {
using namespace MP_KERNEL_SET;
}

// For matrices of n columns at a time; with fewer rows than fewest, ggml's own kernel is not slower.
#define MP_KERNEL(family, activations, n, fewest) Tiled<family>::kernel(Activations::activations, n, fewest)

#define MP_KERNEL_TABLE                                                                                                \
    {                                                                                                                  \
        MP_KERNEL(PlainBlocks<FormatQ4_0>, q8_0, 1, 1),                                                                \
        MP_KERNEL(RepackedQ4_0, q8_0, 8, 1),                                                                           \
        MP_KERNEL(PlainBlocks<FormatQ4_1>, q8_1, 1, 1),                                                                \
        MP_KERNEL(PlainBlocks<FormatQ5_0>, q8_0, 1, 1),                                                                \
        MP_KERNEL(PlainBlocks<FormatQ5_1>, q8_1, 1, 2),                                                                \
        MP_KERNEL(PlainBlocks<FormatQ8_0>, q8_0, 1, 1),                                                                \
        Kernel{}, /* ggml repacks Q8_0 and Q6_K for ARM alone */                                                       \
        MP_KERNEL(PlainQ2K, q8_k, 1, 3),                                                                               \
        MP_KERNEL(RepackedQ2K, q8_k, 8, 1),                                                                            \
        MP_KERNEL(PlainQ3K, q8_k, 1, 3),                                                                               \
        MP_KERNEL(PlainQ4K, q8_k, 1, 1),                                                                               \
        Tiled<RepackedQ4K<false>>::kernel_and<RepackedQ4K<true>>(Activations::q8_k, 8, 1),                             \
        MP_KERNEL(PlainQ5K, q8_k, 1, 2),                                                                               \
        MP_KERNEL(PlainQ6K, q8_k, 1, 1),                                                                               \
        Kernel{},                                                                                                      \
        MP_KERNEL(PlainBlocks<FormatIQ4NL>, q8_0, 1, 1),                                                               \
        MP_KERNEL(RepackedIQ4NL, q8_0, 8, 1),                                                                          \
        MP_KERNEL(PlainIQ4XS, q8_k, 1, 2),                                                                             \
        MP_KERNEL(PlainBlocks<FormatMXFP4>, q8_0, 1, 1),                                                               \
        MP_KERNEL(RepackedMXFP4, q8_0, 8, 1),                                                                          \
        MP_KERNEL(FloatRows<BFloatValues>, bf16, 1, 2),                                                                \
        MP_KERNEL(FloatRows<HalfValues>, f16, 1, 2),                                                                   \
        MP_KERNEL(FloatRows<FloatValues>, f32, 1, 2),                                                                  \
    }
