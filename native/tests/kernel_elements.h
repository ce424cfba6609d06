// The elements of quantized blocks, one by one, for the references that kernels are tested against.
#pragma once

#include "kernel_data.h"

#include <algorithm>
#include <array>

namespace mp::test {

struct Plain32 {
    std::array<int, 32> elements;
    float d = 0.0f;
    float m = 0.0f;
};

inline Plain32 plain_block(Weights weights, const char * from) {
    Plain32 out;
    const auto nibbles = [&](const uint8_t * qs) {
        for (int i = 0; i < 16; ++i) {
            out.elements[i] = qs[i] & 15;
            out.elements[i + 16] = qs[i] >> 4;
        }
    };
    if (weights == Weights::q4_0) {
        const auto block = read<BlockQ4_0>(from);
        out.d = from_half(block.d);
        nibbles(block.qs);
        for (int & x : out.elements) {
            x -= 8;
        }
    } else if (weights == Weights::q4_1) {
        const auto block = read<BlockQ4_1>(from);
        out.d = from_half(block.d);
        out.m = from_half(block.m);
        nibbles(block.qs);
    } else if (weights == Weights::q5_0) {
        const auto block = read<BlockQ5_0>(from);
        out.d = from_half(block.d);
        nibbles(block.qs);
        for (int i = 0; i < 32; ++i) {
            out.elements[i] += ((block.qh[i / 8] >> i % 8 & 1) != 0 ? 16 : 0) - 16;
        }
    } else {
        const auto block = read<BlockQ8_0>(from);
        out.d = from_half(block.d);
        std::copy(std::begin(block.qs), std::end(block.qs), out.elements.begin());
    }
    return out;
}

// Scale and min of the i-th of 8, in ggml's 12 bytes.
inline void scale_min(const uint8_t * q, int i, int & scale, int & min) {
    if (i < 4) {
        scale = q[i] & 63;
        min = q[i + 4] & 63;
    } else {
        scale = (q[i + 4] & 15) | (q[i - 4] >> 6) << 4;
        min = q[i + 4] >> 4 | (q[i] >> 6) << 4;
    }
}

} // namespace mp::test
