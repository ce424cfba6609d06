// Formats whose nibbles are indices of a table, as the file has them: the order of ggml_vec_dot_iq4_nl_q8_0 and
// ggml_vec_dot_mxfp4_q8_0, where two float sums take up blocks in turn. Rows are whole pairs of blocks.
#pragma once

#include "plain_blocks.h"

namespace mp::kernels::MP_KERNEL_SET {

// 2^(e - 128), half of what the exponent of a block says.
MP_INLINE float from_exponent(uint8_t e) {
    const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}

struct FormatIQ4NL : PlainFormat {
    using Block = BlockIQ4NL;
    using Quantized = BlockQ8_0;
    static constexpr bool wide = true;
    static constexpr int turns = 2;
    static MP_INLINE __m256i elements(const Block & block) { return look_up(uneven_steps, block.qs); }
};

struct FormatMXFP4 : PlainFormat {
    using Block = BlockMXFP4;
    using Quantized = BlockQ8_0;
    static constexpr int turns = 2;
    static MP_INLINE __m256i elements(const Block & block) { return look_up(float_steps, block.qs); }
    static MP_INLINE Lanes::Floats scales(const Block & one, const Block & other) {
        return Lanes::join_floats(from_exponent(one.e), from_exponent(other.e));
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
