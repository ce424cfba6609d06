// The block layouts of quantized weights and activations, as ggml keeps them (ggml-common.h, repack.h). Knows bytes
// only. Scales named d, m and dmin are IEEE half floats.
#pragma once

#include <cstdint>

namespace mp::kernels {

struct BlockQ4_0 {
    uint16_t d;
    uint8_t qs[16]; // element i in the low nibble of byte i, element i + 16 in the high one; stored plus 8
};

struct BlockQ4_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qs[16];
};

struct BlockQ5_0 {
    uint16_t d;
    uint8_t qh[4]; // the fifth bits
    uint8_t qs[16];
};

struct BlockQ5_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qh[4]; // as in Q5_0
    uint8_t qs[16];
};

struct BlockIQ4NL {
    uint16_t d;
    uint8_t qs[16]; // indices of values
};

struct BlockMXFP4 {
    uint8_t e; // the scale's exponent
    uint8_t qs[16];
};

struct BlockQ8_0 {
    uint16_t d;
    int8_t qs[32];
};

struct BlockQ8_1 {
    uint16_t d;
    uint16_t s; // d times the sum of qs
    int8_t qs[32];
};

struct BlockQ2K {
    uint8_t scales[16]; // for each 16 elements a scale in the low nibble, a min in the high one
    uint8_t qs[64];     // 32 bytes hold 128 elements: the lowest pairs of bits, then the next
    uint16_t d;
    uint16_t dmin;
};

struct BlockQ3K {
    uint8_t hmask[32];  // the third bits: bit e of byte i is of the i-th element of 32, the e-th time
    uint8_t qs[64];     // as in Q2_K
    uint8_t scales[12]; // 6 bits each, stored plus 32
    uint16_t d;
};

struct BlockQ4K {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12]; // 6 bits each: 8 scales and 8 mins
    uint8_t qs[128];    // 32 bytes hold 64 elements: the low nibbles, then the high ones
};

struct BlockQ5K {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12]; // as in Q4_K
    uint8_t qh[32];     // the fifth bits: bit e of byte i is of the i-th element of 32, the e-th time
    uint8_t qs[128];    // as in Q4_K
};

struct BlockQ6K {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};

struct BlockIQ4XS {
    uint16_t d;
    uint16_t scales_h;   // two high bits of 8 scales, which are stored plus 32
    uint8_t scales_l[4]; // four low ones
    uint8_t qs[128];     // 16 bytes hold 32 elements as in IQ4_NL
};

struct BlockQ8K {
    float d;
    int8_t qs[256];
    int16_t bsums[16]; // sums of 16 elements
};

// Columns side by side, some elements of one after as many of the next; ggml's CPU_REPACK buffers. Eight elements, but
// four where an ARM processor has dot products and no matrix products.
struct BlockQ4_0x4 {
    uint16_t d[4];
    uint8_t qs[64]; // signed nibbles
};

struct BlockQ8_0x4 {
    uint16_t d[4];
    int8_t qs[128];
};

struct BlockQ4_0x8 {
    uint16_t d[8];
    uint8_t qs[128]; // signed nibbles
};

struct BlockIQ4NLx8 {
    uint16_t d[8];
    uint8_t qs[128];
};

struct BlockMXFP4x8 {
    uint8_t e[8];
    uint8_t qs[128];
};

struct BlockQ2Kx8 {
    uint16_t d[8];
    uint16_t dmin[8];
    uint8_t scales[128]; // 16 bytes for each eighth of a block: two of each column, as in Q2_K
    uint8_t qs[512];
};

struct BlockQ4Kx8 {
    uint16_t d[8];
    uint16_t dmin[8];
    uint8_t scales[96]; // 12 bytes for each eighth of a block: 6 bits each, 8 scales and 8 mins of the columns
    uint8_t qs[1024];
};

struct BlockQ6Kx8 {
    uint16_t d[8];
    int8_t scales[128]; // one for each column, sixteenth of a block after sixteenth
    uint8_t ql[1024];
    uint8_t qh[512];
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22, "no padding");
static_assert(sizeof(BlockIQ4NL) == 18 && sizeof(BlockMXFP4) == 17, "no padding");
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ8_1) == 36, "no padding");
static_assert(sizeof(BlockQ2K) == 84 && sizeof(BlockQ3K) == 110 && sizeof(BlockIQ4XS) == 136, "no padding");
static_assert(sizeof(BlockQ4K) == 144 && sizeof(BlockQ5K) == 176 && sizeof(BlockQ6K) == 210, "no padding");
static_assert(sizeof(BlockQ8K) == 292, "no padding");
static_assert(sizeof(BlockIQ4NLx8) == 144 && sizeof(BlockMXFP4x8) == 136, "no padding");
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ2Kx8) == 672, "no padding");
static_assert(sizeof(BlockQ4_0x4) == 72 && sizeof(BlockQ8_0x4) == 136, "no padding");
static_assert(sizeof(BlockQ4_0x8) == 144 && sizeof(BlockQ4Kx8) == 1152 && sizeof(BlockQ6Kx8) == 1680, "no padding");

} // namespace mp::kernels
