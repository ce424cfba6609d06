// Q4_K and Q5_K as the file has them, one column after another: the order of ggml_vec_dot_q4_K_q8_K and _q5_K_q8_K. A
// block's 8 integer sums are taken up by 8 float lanes block by block; the mins have sums of their own.
#pragma once

#include "k_blocks.h"
#include "k_lanes.h"

namespace mp::kernels::MP_KERNEL_SET {

// Low nibbles of 32 bytes are an eighth of the block, high ones the next. A vector of 64 bytes has two such parts.
constexpr int eighth_at(int i) { // which eighth stands at the i-th 32 bytes
    const int vector = i / k_parts;
    return (vector / 2 * k_parts + i % k_parts) * 2 + vector % 2;
}
// Two bytes that say so to a shuffle.
constexpr long long eighth_twice(int i) { return 0x0101LL * eighth_at(i); }

struct FormatQ4K {
    using Block = BlockQ4K;
    static constexpr bool one_min = false; // the mins' products have 4 float sums
    static MP_INLINE void unpack(const Block & block, KLanes * out) {
        MP_UNROLL for (int v = 0; v < k_vectors; v += 2) {
            const KLanes both = k_load(block.qs + v / 2 * k_bytes);
            out[v] = k_low(both);
            out[v + 1] = k_high(both);
        }
    }
};

struct FormatQ5K {
    using Block = BlockQ5K;
    static constexpr bool one_min = true; // the mins' products are added up before they become one float
    static MP_INLINE void unpack(const Block & block, KLanes * out) {
        const KLanes fifths = k_twice32(block.qh); // bit e is of eighth e
        MP_UNROLL for (int v = 0; v < k_vectors; v += 2) {
            const KLanes both = k_load(block.qs + v / 2 * k_bytes);
            out[v] = k_add_where(k_low(both), fifths, bits_of(v), 16);
            out[v + 1] = k_add_where(k_high(both), fifths, bits_of(v + 1), 16);
        }
    }
    static MP_INLINE KLanes bits_of(int v) {
        const int first = k_parts * v;
        return k_bytes_of(1 << eighth_at(first), 1 << eighth_at(first + k_parts - 1));
    }
};

template <class Format> struct PlainK {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 4;

    // n x 256 activations in the order of the unpacked weights, sums of 32 as 16 bits, room for 8 scales. The sums are
    // 8 for each row, or with one min a lane for each of 8 rows: 4 vectors of pairs.
    static constexpr size_t sums_at(int n) { return 256 * static_cast<size_t>(n); }
    static constexpr size_t scales_at(int n) { return sums_at(n) + 16 * (Format::one_min ? tile : n); }
    static constexpr size_t packed_block_bytes(int n) { return whole_lines(scales_at(n) + 4 * tile); }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        for (int i = 0; i < 8; ++i) {
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + 256 * row + 32 * i),
                                load32(q->qs + 32 * eighth_at(i)));
        }
        int16_t * sums = reinterpret_cast<int16_t *>(out + sums_at(n));
        for (int i = 0; i < 8; ++i) {
            sums[Format::one_min ? i / 2 * 2 * tile + 2 * row + i % 2 : 8 * row + i] =
                static_cast<int16_t>(q->bsums[2 * i] + q->bsums[2 * i + 1]);
        }
        reinterpret_cast<float *>(out + scales_at(n))[row] = q->d;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const typename Format::Block *>(weights) + column * n_blocks;
        for (int c = 0; c < count; ++c, blocks += n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
        }
    }

    // The scales of the eighths, twice each, in the order in which those stand in unpacked weights.
    static MP_INLINE __m128i of_parts(uint64_t scales) {
        constexpr long long order[2] = {
            eighth_twice(0) | eighth_twice(1) << 16 | eighth_twice(2) << 32 | eighth_twice(3) << 48,
            eighth_twice(4) | eighth_twice(5) << 16 | eighth_twice(6) << 32 | eighth_twice(7) << 48};
        return _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<long long>(scales)), _mm_set_epi64x(order[1], order[0]));
    }

    template <int N>
    static MP_INLINE void multiply_column(const typename Format::Block * blocks, int64_t n_blocks, const char * packed,
                                          float * y, size_t stride) {
        __m256 sums[N];
        __m128 mins[N];
        __m256 one_min = _mm256_setzero_ps(); // a lane per row
        MP_UNROLL for (int r = 0; r < N; ++r) {
            sums[r] = _mm256_setzero_ps();
            mins[r] = _mm_setzero_ps();
        }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            const typename Format::Block & x = blocks[b];
            prefetch(&x + n_blocks, sizeof x);
            KBlock unpacked;
            Format::unpack(x, unpacked.elements);
            uint64_t scales;
            uint64_t min_bytes;
            unpack_scales(x.scales, scales, min_bytes);
            spread_scales(of_parts(scales), unpacked.scales);
            const __m128i min_values = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<long long>(min_bytes)));
            const __m256 row_d = _mm256_loadu_ps(reinterpret_cast<const float *>(packed + scales_at(N)));
            const __m256 row_dmin = _mm256_mul_ps(row_d, _mm256_set1_ps(-from_half(x.dmin)));
            alignas(32) float d[tile];
            alignas(32) float dmin[tile];
            _mm256_store_ps(d, _mm256_mul_ps(row_d, _mm256_set1_ps(from_half(x.d))));
            _mm256_store_ps(dmin, row_dmin);
            if constexpr (Format::one_min) {
                const __m256i pairs = _mm256_broadcastsi128_si256(min_values);
                const char * row_sums = packed + sums_at(N);
                __m256i products = _mm256_madd_epi16(_mm256_shuffle_epi32(pairs, 0x00), load32(row_sums));
                products = add_pairs(products, _mm256_shuffle_epi32(pairs, 0x55), load32(row_sums + 32));
                products = add_pairs(products, _mm256_shuffle_epi32(pairs, 0xaa), load32(row_sums + 64));
                products = add_pairs(products, _mm256_shuffle_epi32(pairs, 0xff), load32(row_sums + 96));
                one_min = _mm256_fmadd_ps(row_dmin, _mm256_cvtepi32_ps(products), one_min);
            }
            MP_UNROLL for (int r = 0; r < N; ++r) {
                KLanes sum = k_zero();
                MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
                    sum = k_add_scaled(sum, unpacked.elements[v], k_load(packed + 256 * r + v * k_bytes),
                                       unpacked.scales[v]);
                }
                if constexpr (!Format::one_min) {
                    const auto * row_sums = reinterpret_cast<const __m128i *>(packed + sums_at(N) + 16 * r);
                    const __m128i products = _mm_madd_epi16(min_values, _mm_loadu_si128(row_sums));
                    mins[r] = _mm_fmadd_ps(_mm_set1_ps(dmin[r]), _mm_cvtepi32_ps(products), mins[r]);
                }
                sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(d[r]), _mm256_cvtepi32_ps(k_fold(sum)), sums[r]);
            }
        }
        alignas(32) float row_mins[tile];
        _mm256_store_ps(row_mins, one_min);
        MP_UNROLL for (int r = 0; r < N; ++r) {
            const __m128 halves = _mm_add_ps(mins[r], _mm_movehl_ps(mins[r], mins[r]));
            const float min = _mm_cvtss_f32(_mm_add_ss(halves, _mm_movehdup_ps(halves)));
            y[static_cast<size_t>(r) * stride] = sum_lanes(sums[r]) + (Format::one_min ? row_mins[r] : min);
        }
    }
};

using PlainQ4K = PlainK<FormatQ4K>;
using PlainQ5K = PlainK<FormatQ5K>;

} // namespace mp::kernels::MP_KERNEL_SET
