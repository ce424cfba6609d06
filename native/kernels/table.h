// The kernels of one instruction set, in the order of Weights.
#include "floats.h"
#include "plain_blocks.h"
#include "plain_k.h"
#include "repacked.h"

#define MP_KERNEL_TABLE                                                                                                \
    {                                                                                                                  \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::PlainBlocks<MP_KERNEL_SET::FormatQ4_0>>::kernel(Activations::q8_0, 1, 1),  \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::RepackedQ4_0>::kernel(Activations::q8_0, 8, 1),                            \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::PlainBlocks<MP_KERNEL_SET::FormatQ4_1>>::kernel(Activations::q8_1, 1, 1),  \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::PlainBlocks<MP_KERNEL_SET::FormatQ5_0>>::kernel(Activations::q8_0, 1, 1),  \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::PlainBlocks<MP_KERNEL_SET::FormatQ8_0>>::kernel(Activations::q8_0, 1, 1),  \
        Kernel{}, /* ggml repacks Q8_0 and Q6_K for ARM alone */                                                       \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::PlainQ4K>::kernel(Activations::q8_k, 1, 1),                                \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::RepackedQ4K>::kernel(Activations::q8_k, 8, 1),                             \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::PlainQ6K>::kernel(Activations::q8_k, 1, 1),                                \
        Kernel{},                                                                                                      \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::FloatRows<uint16_t>>::kernel(Activations::f16, 1, 2),                      \
        MP_KERNEL_SET::Tiled<MP_KERNEL_SET::FloatRows<float>>::kernel(Activations::f32, 1, 2),                         \
    }
