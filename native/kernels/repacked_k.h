// Q4_K and Q2_K in ggml's CPU_REPACK layout of 8 columns side by side: the order of ggml_gemv_q4_K_8x8_q8_K and
// ggml_gemv_q2_K_8x8_q8_K. A float lane per column takes up exact integer sums block by block, another the mins.
#pragma once

#include "plain_k.h"
#include "repacked.h"

namespace mp::kernels::MP_KERNEL_SET {

// InQuarters: floats take up sums of 64 elements, as in ggml_gemm_q4_K_8x8_q8_K, not of the block.
template <bool InQuarters> struct RepackedQ4K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = Group::groups == 2 ? 8 : 4;
    static constexpr int columns = 8 * Group::groups;

    // n x 256 activations, n x 8 sums of 32 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * (256 + 16 + 4); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        __builtin_memcpy(out + 256 * row, q->qs, 256);
        int16_t * sums = reinterpret_cast<int16_t *>(out + 256 * n) + 8 * row;
        for (int i = 0; i < 8; ++i) {
            sums[i] = static_cast<int16_t>(q->bsums[2 * i] + q->bsums[2 * i + 1]);
        }
        reinterpret_cast<float *>(out + 272 * n)[row] = q->d;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * a = static_cast<const BlockQ4Kx8 *>(weights) + column / 8 * n_blocks;
        const auto * b = count > 8 ? a + n_blocks : a;
        const auto * next = reinterpret_cast<const char *>(a + Group::groups * n_blocks);
        constexpr size_t step = Group::groups * sizeof(BlockQ4Kx8) / 4;
        Group::Floats sums[N];
        Group::Floats mins[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = mins[r] = Group::zero_floats(); }
        for (int64_t i = 0; i < n_blocks; ++i, packed += packed_block_bytes(N)) {
            __m128i scale_bytes[8];
            __m128i min_bytes[8];
            unpack(a[i], b[i], scale_bytes, min_bytes);
            const Group::Floats d = Group::halves(a[i].d, b[i].d);
            const Group::Floats dmin = Group::halves(a[i].dmin, b[i].dmin);
            const float * row_d = reinterpret_cast<const float *>(packed + 272 * N);
            Group::Ints totals[N];
            Group::Ints offsets[N];
            MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = offsets[r] = Group::zero(); }
            for (int quarter = 0; quarter < 4; ++quarter) {
                prefetch(next + static_cast<size_t>(4 * i + quarter) * step, step);
                Group::Ints both[8];
                Group::elements16(a[i].qs + 256 * quarter, b[i].qs + 256 * quarter, both);
                Group::elements16(a[i].qs + 256 * quarter + 128, b[i].qs + 256 * quarter + 128, both + 4);
                MP_UNROLL for (int half = 0; half < 2; ++half) {
                    Group::Ints elements[8];
                    MP_UNROLL for (int e = 0; e < 8; ++e) {
                        elements[e] = half == 0 ? Group::low_nibbles(both[e]) : Group::high_nibbles(both[e]);
                    }
                    const __m128i scales = scale_bytes[2 * quarter + half];
                    MP_UNROLL for (int r = 0; r < N; ++r) {
                        const char * row = packed + 256 * r + 64 * quarter + 32 * half;
                        totals[r] = Group::add(totals[r], Group::scale(dot32(Group::zero(), elements, row), scales));
                    }
                }
                const Group::Ints lows = Group::pairs_of(min_bytes[2 * quarter], min_bytes[2 * quarter + 1]);
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    offsets[r] = Group::multiply_pairs(offsets[r], lows,
                                                       Group::four_bytes(packed + 256 * N + 16 * r + 4 * quarter));
                }
                if (!InQuarters && quarter < 3) {
                    continue;
                }
                MP_UNROLL for (int r = 0; r < N; ++r) {
                    const Group::Floats scale = Group::set1(row_d[r]);
                    sums[r] = Group::multiply_add(Group::to_floats(totals[r]), Group::multiply(d, scale), sums[r]);
                    mins[r] = Group::multiply_add(Group::to_floats(offsets[r]), Group::multiply(dmin, scale), mins[r]);
                    totals[r] = offsets[r] = Group::zero();
                }
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            Group::store(y + static_cast<size_t>(r) * stride + column, Group::subtract(sums[r], mins[r]), count > 8);
        }
    }

    // The scales and mins of each eighth of a block, a byte a column.
    static MP_INLINE void unpack(const BlockQ4Kx8 & a, const BlockQ4Kx8 & b, __m128i * scale_bytes,
                                 __m128i * min_bytes) {
        MP_UNROLL for (int e = 0; e < 8; ++e) {
            uint64_t scales[2];
            uint64_t lows[2];
            unpack_scales(a.scales + 12 * e, scales[0], lows[0]);
            unpack_scales(b.scales + 12 * e, scales[1], lows[1]);
            scale_bytes[e] = Group::bytes(scales[0], scales[1]);
            min_bytes[e] = Group::bytes(lows[0], lows[1]);
        }
    }
};

struct RepackedQ2K {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = Group::groups == 2 ? 8 : 4;
    static constexpr int columns = 8 * Group::groups;

    // n x 256 activations, n x 16 sums of 16 as 16 bits, n scales.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * (256 + 32 + 4); }

    static void pack_block(const Quantized * q, int row, int n, char * out) { pack_with_sums_of_16(*q, row, n, out); }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * a = static_cast<const BlockQ2Kx8 *>(weights) + column / 8 * n_blocks;
        const auto * b = count > 8 ? a + n_blocks : a;
        const auto * next = reinterpret_cast<const char *>(a + Group::groups * n_blocks);
        constexpr size_t step = Group::groups * sizeof(BlockQ2Kx8);
        Group::Floats sums[N];
        Group::Floats mins[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = mins[r] = Group::zero_floats(); }
        for (int64_t i = 0; i < n_blocks; ++i, packed += packed_block_bytes(N)) {
            prefetch(next + static_cast<size_t>(i) * step, step);
            Group::Ints scales[16]; // a pair of the same for each 16 elements
            Group::Ints lows[8];    // pairs of mins
            unpack(a[i], b[i], scales, lows);
            Group::Ints totals[N];
            MP_UNROLL for (int r = 0; r < N; ++r) { totals[r] = Group::zero(); }
            for (int quarter = 0; quarter < 4; ++quarter) { // 16 bytes of a column: four times 16 elements
                Group::Ints pairs[4];
                Group::elements16(a[i].qs + 128 * quarter, b[i].qs + 128 * quarter, pairs);
                const int first = quarter / 2 * 8 + quarter % 2; // the sixteenth of the block that they begin with
                MP_UNROLL for (int part = 0; part < 4; ++part) {
                    Group::Ints elements[4];
                    MP_UNROLL for (int e = 0; e < 4; ++e) {
                        elements[e] = Group::and_bits(pairs[e], 0x03030303);
                        pairs[e] = Group::down<2>(pairs[e]);
                    }
                    const int sixteenth = first + 2 * part;
                    MP_UNROLL for (int r = 0; r < N; ++r) {
                        const char * row = packed + 256 * r + 16 * sixteenth;
                        Group::Ints sum = Group::pair_products(elements[0], Group::four_bytes(row));
                        MP_UNROLL for (int e = 1; e < 4; ++e) {
                            sum = Group::add16(sum, Group::pair_products(elements[e], Group::four_bytes(row + 4 * e)));
                        }
                        totals[r] = Group::multiply_pairs(totals[r], sum, scales[sixteenth]);
                    }
                }
            }
            const Group::Floats d = Group::halves(a[i].d, b[i].d);
            const Group::Floats dmin = Group::halves(a[i].dmin, b[i].dmin);
            const float * row_d = reinterpret_cast<const float *>(packed + 288 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                Group::Ints offset = Group::zero();
                MP_UNROLL for (int e = 0; e < 8; ++e) {
                    offset =
                        Group::multiply_pairs(offset, lows[e], Group::four_bytes(packed + 256 * N + 32 * r + 4 * e));
                }
                const Group::Floats scale = Group::set1(row_d[r]);
                sums[r] = Group::multiply_add(Group::to_floats(totals[r]), Group::multiply(d, scale), sums[r]);
                mins[r] = Group::multiply_add(Group::to_floats(offset), Group::multiply(dmin, scale), mins[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            Group::store(y + static_cast<size_t>(r) * stride + column, Group::subtract(sums[r], mins[r]), count > 8);
        }
    }

    static MP_INLINE void unpack(const BlockQ2Kx8 & a, const BlockQ2Kx8 & b, Group::Ints * scales, Group::Ints * lows) {
        MP_UNROLL for (int e = 0; e < 8; ++e) {
            const Group::Ints both = Group::words(a.scales + 16 * e, b.scales + 16 * e);
            scales[2 * e] = twice(Group::and_bits(both, 15));
            scales[2 * e + 1] = twice(Group::and_bits(Group::down<8>(both), 15));
            lows[e] =
                Group::add(Group::and_bits(Group::down<4>(both), 15), Group::up<4>(Group::and_bits(both, 0xf000)));
        }
    }

    static MP_INLINE Group::Ints twice(Group::Ints x) { return Group::add(x, Group::up<16>(x)); }
};

} // namespace mp::kernels::MP_KERNEL_SET
