// What blocks of the K-quants are made of, for all processors: scales of 6 bits, and how rows of Q8_K are packed.
#pragma once

#include "blocks.h"
#include "tiles.h"

namespace mp::kernels::MP_KERNEL_SET {

// The 6-bit scales and mins of ggml's 12 bytes.
MP_INLINE void unpack_scales(const uint8_t * packed, uint64_t & scales, uint64_t & mins) {
    uint32_t u[3];
    __builtin_memcpy(u, packed, 12);
    const uint64_t high_scales = (u[2] & 0x0f0f0f0fu) | ((u[0] >> 6 & 0x03030303u) << 4);
    const uint64_t high_mins = (u[2] >> 4 & 0x0f0f0f0fu) | ((u[1] >> 6 & 0x03030303u) << 4);
    scales = (u[0] & 0x3f3f3f3fu) | high_scales << 32;
    mins = (u[1] & 0x3f3f3f3fu) | high_mins << 32;
}

// The row-th of n rows: n x 256 activations, n x 16 sums of 16 as 16 bits, scales.
MP_INLINE void pack_with_sums_of_16(const BlockQ8K & q, int row, int n, char * out) {
    __builtin_memcpy(out + 256 * row, q.qs, 256);
    __builtin_memcpy(out + 256 * n + 32 * row, q.bsums, 32);
    reinterpret_cast<float *>(out + 288 * n)[row] = q.d;
}

} // namespace mp::kernels::MP_KERNEL_SET
