// The NEON kernels of one instruction set, in the order of Weights. Whether llama.cpp's own kernel is slower on one row
// was never measured on such a processor, so one row is left to it.
#include "floats.h"
#include "neon_k.h"
#include "neon_plain.h"
#include "neon_repacked.h"
#include "neon_repacked_k.h"

namespace mp::kernels::MP_KERNEL_SET {

template <class Family> constexpr Kernel kernel_for(Activations activations, int n_multiple) {
    return Tiled<Family>::kernel(activations, n_multiple, 2);
}

// Those whose roundings ggml's compiler chooses have a fused variant. F16 is left out: where the processor adds half
// floats, ggml's sums are half floats.
template <bool Fused> constexpr Kernel kernel_of(Weights weights) {
    switch (weights) {
    case Weights::q4_0: return kernel_for<PlainBlocks<PlainFormatQ4_0, Fused>>(Activations::q8_0, 1);
    case Weights::q4_1: return kernel_for<PlainBlocks<PlainFormatQ4_1, Fused>>(Activations::q8_1, 1);
    case Weights::q5_0: return kernel_for<PlainBlocks<PlainFormatQ5_0, Fused>>(Activations::q8_0, 1);
    case Weights::q8_0: return kernel_for<PlainBlocks<PlainFormatQ8_0, Fused>>(Activations::q8_0, 1);
    case Weights::q4_k_repacked: return kernel_for<RepackedQ4K<Fused>>(Activations::q8_k, 8);
    case Weights::q6_k_repacked: return kernel_for<RepackedQ6K<Fused>>(Activations::q8_k, 8);
    default: break;
    }
    if constexpr (!Fused) {
        switch (weights) {
        case Weights::q4_0_repacked: return kernel_for<RepackedBlocks<RepackedFormatQ4_0>>(Activations::q8_0, 4);
        case Weights::q8_0_repacked: return kernel_for<RepackedBlocks<RepackedFormatQ8_0>>(Activations::q8_0, 4);
        case Weights::q4_k: return kernel_for<PlainQ4K>(Activations::q8_k, 1);
        case Weights::q6_k: return kernel_for<PlainQ6K>(Activations::q8_k, 1);
        case Weights::f32: return kernel_for<FloatRows<float>>(Activations::f32, 1);
        default: break;
        }
    }
    return {};
}

template <bool Fused> struct Table {
    Kernel kernels[n_weights] = {};
    constexpr Table() {
        for (int w = 0; w < n_weights; ++w) {
            kernels[w] = kernel_of<Fused>(static_cast<Weights>(w));
        }
    }
};

inline const Kernel & kernel_at(Weights weights, bool fused) {
    static constexpr Table<false> separate;
    static constexpr Table<true> as_one;
    return (fused ? as_one.kernels : separate.kernels)[static_cast<int>(weights)];
}

} // namespace mp::kernels::MP_KERNEL_SET
