// The blocks of every kind of weights and of quantized activations, filled at random.
#pragma once

#include "../kernels/blocks.h"
#include "check.h"
#include "kernels.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace mp::test {

using namespace mp::kernels;

inline float from_half(uint16_t half) {
    const int exponent = half >> 10 & 31;
    const float mantissa = static_cast<float>(half & 1023);
    const float size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024.0f, exponent - 25);
    return half >> 15 != 0 ? -size : size;
}

// Finite, of either sign, small, subnormal or zero now and then.
inline uint16_t random_half(std::mt19937 & rng) {
    const int32_t kind = below(rng, 12);
    const auto bits = static_cast<uint16_t>(below(rng, 1024) | below(rng, 2) << 15);
    return kind == 0 ? 0 : kind == 1 ? bits : static_cast<uint16_t>(bits | (8 + below(rng, 12)) << 10);
}

inline float random_float(std::mt19937 & rng) {
    return std::ldexp(static_cast<float>(below(rng, 1 << 20) - (1 << 19)), below(rng, 8) - 20);
}

// --- the formats, element by element ----------------------------------------------------------------

struct Format {
    size_t block_bytes;
    int elements;     // of a block
    size_t columns;   // that a block holds
    size_t row_bytes; // of a block of quantized activations
};

inline Format format_of(Weights weights, bool wide) {
    const int floats = wide ? 64 : 32;
    switch (weights) {
    case Weights::q4_0: return {sizeof(BlockQ4_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q4_0_x8: return {sizeof(BlockQ4_0x8), 32, 8, sizeof(BlockQ8_0)};
    case Weights::q4_1: return {sizeof(BlockQ4_1), 32, 1, sizeof(BlockQ8_1)};
    case Weights::q5_1: return {sizeof(BlockQ5_1), 32, 1, sizeof(BlockQ8_1)};
    case Weights::q2_k_x8: return {sizeof(BlockQ2Kx8), 256, 8, sizeof(BlockQ8K)};
    case Weights::q5_0: return {sizeof(BlockQ5_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q8_0: return {sizeof(BlockQ8_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q2_k: return {sizeof(BlockQ2K), 256, 1, sizeof(BlockQ8K)};
    case Weights::q3_k: return {sizeof(BlockQ3K), 256, 1, sizeof(BlockQ8K)};
    case Weights::iq4_xs: return {sizeof(BlockIQ4XS), 256, 1, sizeof(BlockQ8K)};
    case Weights::q4_k: return {sizeof(BlockQ4K), 256, 1, sizeof(BlockQ8K)};
    case Weights::q4_k_x8: return {sizeof(BlockQ4Kx8), 256, 8, sizeof(BlockQ8K)};
    case Weights::q5_k: return {sizeof(BlockQ5K), 256, 1, sizeof(BlockQ8K)};
    case Weights::q6_k: return {sizeof(BlockQ6K), 256, 1, sizeof(BlockQ8K)};
    case Weights::mxfp4: return {2 * sizeof(BlockMXFP4), 64, 1, 2 * sizeof(BlockQ8_0)};
    case Weights::mxfp4_x8: return {sizeof(BlockMXFP4x8), 32, 8, sizeof(BlockQ8_0)};
    case Weights::iq4_nl: return {2 * sizeof(BlockIQ4NL), 64, 1, 2 * sizeof(BlockQ8_0)};
    case Weights::iq4_nl_x8: return {sizeof(BlockIQ4NLx8), 32, 8, sizeof(BlockQ8_0)};
    case Weights::bf16: return {64, 32, 1, 64};
    case Weights::f16: return {2 * static_cast<size_t>(floats), floats, 1, 2 * static_cast<size_t>(floats)};
    case Weights::f32: return {4 * static_cast<size_t>(floats), floats, 1, 4 * static_cast<size_t>(floats)};
    }
    return {};
}

// Where the scales of a block stand: random halves there, random bytes elsewhere.
inline std::vector<size_t> halves_of(Weights weights) {
    switch (weights) {
    case Weights::q4_0:
    case Weights::q5_0:
    case Weights::q8_0:
    case Weights::iq4_xs: return {0};
    case Weights::q2_k: return {80, 82};
    case Weights::q3_k: return {108};
    case Weights::q4_1:
    case Weights::q5_1:
    case Weights::q4_k:
    case Weights::q5_k: return {0, 2};
    case Weights::q6_k: return {208};
    case Weights::iq4_nl: return {0, 18};
    case Weights::iq4_nl_x8:
    case Weights::q4_0_x8: return {0, 2, 4, 6, 8, 10, 12, 14};
    case Weights::q2_k_x8:
    case Weights::q4_k_x8: return {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    default: return {};
    }
}

// Where exponents of scales stand.
inline std::vector<size_t> exponents_of(Weights weights) {
    switch (weights) {
    case Weights::mxfp4: return {0, 17};
    case Weights::mxfp4_x8: return {0, 1, 2, 3, 4, 5, 6, 7};
    default: return {};
    }
}

// Ordinary ones, or now and then the least.
inline uint8_t random_exponent(std::mt19937 & rng) {
    return static_cast<uint8_t>(below(rng, 8) == 0 ? below(rng, 4) : 110 + below(rng, 30));
}

inline void fill_block(std::mt19937 & rng, Weights weights, const Format & format, char * out) {
    if (weights == Weights::f32) {
        for (int i = 0; i < format.elements; ++i) {
            const float value = random_float(rng);
            std::memcpy(out + 4 * i, &value, 4);
        }
        return;
    }
    if (weights == Weights::bf16) {
        for (int i = 0; i < format.elements; ++i) {
            const float value = random_float(rng);
            std::memcpy(out + 2 * i, reinterpret_cast<const char *>(&value) + 2, 2); // its upper half
        }
        return;
    }
    const int32_t kind = below(rng, 8); // the extremes of every quant now and then
    for (size_t i = 0; i < format.block_bytes; ++i) {
        out[i] = static_cast<char>(kind == 0 ? 0 : kind == 1 ? 255 : kind == 2 ? 128 : below(rng, 256));
    }
    std::vector<size_t> halves = halves_of(weights);
    for (const size_t at : exponents_of(weights)) {
        out[at] = static_cast<char>(random_exponent(rng));
    }
    for (int i = 0; weights == Weights::f16 && i < format.elements; ++i) {
        halves.push_back(2 * static_cast<size_t>(i));
    }
    for (const size_t at : halves) {
        const uint16_t half = random_half(rng);
        std::memcpy(out + at, &half, 2);
    }
}

inline void fill_activations(std::mt19937 & rng, Activations activations, const Format & format, char * out) {
    const int32_t kind = below(rng, 6);
    const bool zeros = kind == 2; // ggml leaves the sums of such a Q8_K block as they were
    const auto quant = [&] {
        return static_cast<int8_t>(zeros ? 0 : kind == 0 ? 127 : kind == 1 ? -127 : below(rng, 255) - 127);
    };
    switch (activations) {
    case Activations::q8_0: {
        BlockQ8_0 block;
        for (size_t at = 0; at < format.row_bytes; at += sizeof block) {
            block.d = zeros ? 0 : random_half(rng);
            for (int8_t & q : block.qs) {
                q = quant();
            }
            std::memcpy(out + at, &block, sizeof block);
        }
        return;
    }
    case Activations::q8_1: {
        BlockQ8_1 block;
        block.d = zeros ? 0 : random_half(rng);
        block.s = random_half(rng);
        for (int8_t & q : block.qs) {
            q = quant();
        }
        std::memcpy(out, &block, sizeof block);
        return;
    }
    case Activations::q8_k: {
        BlockQ8K block;
        block.d = zeros ? 0.0f : random_float(rng);
        for (int i = 0; i < 16; ++i) {
            block.bsums[i] = static_cast<int16_t>(zeros ? rng() : 0);
            for (int j = 0; j < 16; ++j) {
                block.qs[16 * i + j] = quant();
                block.bsums[i] = static_cast<int16_t>(block.bsums[i] + block.qs[16 * i + j]);
            }
        }
        std::memcpy(out, &block, sizeof block);
        return;
    }
    case Activations::bf16: fill_block(rng, Weights::bf16, format, out); return;
    case Activations::f16: fill_block(rng, Weights::f16, format, out); return;
    case Activations::f32: fill_block(rng, Weights::f32, format, out); return;
    }
}

} // namespace mp::test
