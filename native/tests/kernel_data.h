// Random blocks of every kind of weights and activations, extremes among them, for the tests of kernels.
#pragma once

#include "../kernels/blocks.h"
#include "check.h"
#include "kernels.h"

#include <cmath>
#include <cstring>

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

// Which of ggml's orders a kernel follows.
struct Order {
    Instructions instructions;
    bool wide_floats = false;
    bool fused = false;

    bool is_neon() const { return instructions >= Instructions::neon_dotprod; }
    // Elements of a column that stand together in repacked weights.
    int run() const { return instructions == Instructions::neon_dotprod ? 4 : 8; }
    // Float lanes that take turns along a row of F16 and F32, in four vectors.
    int float_lanes() const { return is_neon() ? 4 : wide_floats ? 16 : 8; }
};

inline Format format_of(Weights weights, const Order & order) {
    const int floats = 4 * order.float_lanes();
    switch (weights) {
    case Weights::q4_0: return {sizeof(BlockQ4_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q4_0_repacked:
        return order.is_neon() ? Format{sizeof(BlockQ4_0x4), 32, 4, sizeof(BlockQ8_0)}
                               : Format{sizeof(BlockQ4_0x8), 32, 8, sizeof(BlockQ8_0)};
    case Weights::q4_1: return {sizeof(BlockQ4_1), 32, 1, sizeof(BlockQ8_1)};
    case Weights::q5_0: return {sizeof(BlockQ5_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q8_0: return {sizeof(BlockQ8_0), 32, 1, sizeof(BlockQ8_0)};
    case Weights::q8_0_repacked: return {sizeof(BlockQ8_0x4), 32, 4, sizeof(BlockQ8_0)};
    case Weights::q4_k: return {sizeof(BlockQ4K), 256, 1, sizeof(BlockQ8K)};
    case Weights::q4_k_repacked: return {sizeof(BlockQ4Kx8), 256, 8, sizeof(BlockQ8K)};
    case Weights::q6_k: return {sizeof(BlockQ6K), 256, 1, sizeof(BlockQ8K)};
    case Weights::q6_k_repacked: return {sizeof(BlockQ6Kx8), 256, 8, sizeof(BlockQ8K)};
    case Weights::f16: return {2 * static_cast<size_t>(floats), floats, 1, 2 * static_cast<size_t>(floats)};
    case Weights::f32: return {4 * static_cast<size_t>(floats), floats, 1, 4 * static_cast<size_t>(floats)};
    }
    return {};
}

// Where the scales of a block stand: random halves there, random bytes elsewhere.
inline std::vector<size_t> halves_of(Weights weights, const Format & format) {
    switch (weights) {
    case Weights::q4_0:
    case Weights::q5_0:
    case Weights::q8_0: return {0};
    case Weights::q4_1:
    case Weights::q4_k: return {0, 2};
    case Weights::q6_k: return {208};
    case Weights::q4_0_repacked:
    case Weights::q8_0_repacked:
    case Weights::q4_k_repacked:
    case Weights::q6_k_repacked: {
        std::vector<size_t> out; // a scale of each column, then a min
        for (size_t i = 0; i < format.columns * (weights == Weights::q4_k_repacked ? 2 : 1); ++i) {
            out.push_back(2 * i);
        }
        return out;
    }
    default: return {};
    }
}

inline void fill_block(std::mt19937 & rng, Weights weights, const Format & format, char * out) {
    if (weights == Weights::f32) {
        for (int i = 0; i < format.elements; ++i) {
            const float value = random_float(rng);
            std::memcpy(out + 4 * i, &value, 4);
        }
        return;
    }
    const int32_t kind = below(rng, 8); // the extremes of every quant now and then
    for (size_t i = 0; i < format.block_bytes; ++i) {
        out[i] = static_cast<char>(kind == 0 ? 0 : kind == 1 ? 255 : kind == 2 ? 128 : below(rng, 256));
    }
    std::vector<size_t> halves = halves_of(weights, format);
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
        block.d = zeros ? 0 : random_half(rng);
        for (int8_t & q : block.qs) {
            q = quant();
        }
        std::memcpy(out, &block, sizeof block);
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
    case Activations::f16: fill_block(rng, Weights::f16, format, out); return;
    case Activations::f32: fill_block(rng, Weights::f32, format, out); return;
    }
}

template <class Block> Block read(const char * from) {
    Block block;
    std::memcpy(&block, from, sizeof block);
    return block;
}

} // namespace mp::test
