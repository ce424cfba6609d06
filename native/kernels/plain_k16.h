// Q6_K, Q3_K, Q2_K and IQ4_XS as the file has them, one column after another: the order of ggml_vec_dot_*_q8_K. 16
// elements have a scale of their own.
#pragma once

#include "k_blocks.h"
#include "k_lanes.h"
#include "lookup.h"

namespace mp::kernels::MP_KERNEL_SET {

// What a format is like: elements are unsigned bytes, too large by 2^raised if it is not 0, signed ones, or ones with a
// min for every 16.
struct Format16 {
    static constexpr int raised = 0;
    static constexpr bool is_signed = false;
    static constexpr bool has_min = false;
};

struct FormatQ6K : Format16 {
    using Block = BlockQ6K;
    static constexpr int raised = 5;

    static MP_INLINE void unpack(const Block & block, KLanes * out) {
        unpack_half(block.ql, block.qh, out);
        unpack_half(block.ql + 64, block.qh + 32, out + k_vectors / 2);
    }

    static MP_INLINE __m128i scales(const Block & block) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(block.scales));
    }

    // Half a block: 64 bytes of low nibbles and 32 of high pairs of bits give 4 x 32 elements, 0..63.
    static MP_INLINE void unpack_half(const uint8_t * ql, const uint8_t * qh, KLanes * out) {
#if defined(MP_AVX512_VNNI)
        const __m512i low = _mm512_loadu_si512(ql);
        const __m512i high = _mm512_broadcast_i64x4(load32(qh));
        const __m512i first_bits = _mm512_inserti64x4(_mm512_set1_epi8(3), _mm256_set1_epi8(12), 1);
        const __m512i last_bits = _mm512_inserti64x4(_mm512_set1_epi8(48), _mm256_set1_epi8(static_cast<char>(192)), 1);
        const __m512i up = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
        const __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
        out[0] = _mm512_or_si512(k_low(low), _mm512_sllv_epi16(_mm512_and_si512(high, first_bits), up));
        out[1] = _mm512_or_si512(k_high(low), _mm512_srlv_epi16(_mm512_and_si512(high, last_bits), down));
#else
        const __m256i low[2] = {load32(ql), load32(ql + 32)};
        const __m256i high = load32(qh);
        const __m256i two = _mm256_set1_epi8(3);
        const __m256i pairs[4] = {_mm256_and_si256(high, two), _mm256_and_si256(_mm256_srli_epi16(high, 2), two),
                                  _mm256_and_si256(_mm256_srli_epi16(high, 4), two),
                                  _mm256_and_si256(_mm256_srli_epi16(high, 6), two)};
        out[0] = _mm256_or_si256(k_low(low[0]), _mm256_slli_epi16(pairs[0], 4));
        out[1] = _mm256_or_si256(k_low(low[1]), _mm256_slli_epi16(pairs[1], 4));
        out[2] = _mm256_or_si256(k_high(low[0]), _mm256_slli_epi16(pairs[2], 4));
        out[3] = _mm256_or_si256(k_high(low[1]), _mm256_slli_epi16(pairs[3], 4));
#endif
    }
};

struct FormatQ3K : Format16 {
    using Block = BlockQ3K;
    static constexpr bool is_signed = true; // ggml takes every element's 4 off before it adds

    static MP_INLINE void unpack(const Block & block, KLanes * out) {
        k_pairs_of_bits(block.qs, out);
        k_pairs_of_bits(block.qs + 32, out + k_vectors / 2);
        const KLanes thirds = k_twice32(block.hmask); // bit e is of eighth e
        MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
            const KLanes bits = k_bytes_of(1 << k_parts * v, 1 << (k_parts * v + k_parts - 1));
            out[v] = k_subtract(k_add_where(out[v], thirds, bits, 4), 4);
        }
    }

    // Four bits of each in 8 bytes, low nibbles first; the other two in the 4 bytes behind, by fours.
    static MP_INLINE __m128i scales(const Block & block) {
        uint64_t nibbles;
        uint32_t pairs;
        __builtin_memcpy(&nibbles, block.scales, 8);
        __builtin_memcpy(&pairs, block.scales + 8, 4);
        constexpr uint64_t four_bits = 0x0f0f0f0f0f0f0f0f;
        const uint64_t low = (nibbles & four_bits) | (two_bits(pairs) | two_bits(pairs >> 2) << 32) << 4;
        const uint64_t high = (nibbles >> 4 & four_bits) | (two_bits(pairs >> 4) | two_bits(pairs >> 6) << 32) << 4;
        const __m128i all = _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
        return _mm_sub_epi8(all, _mm_set1_epi8(32));
    }

    static MP_INLINE uint64_t two_bits(uint32_t x) { return x & 0x03030303u; }
};

struct FormatQ2K : Format16 {
    using Block = BlockQ2K;
    static constexpr bool has_min = true;

    static MP_INLINE void unpack(const Block & block, KLanes * out) {
        k_pairs_of_bits(block.qs, out);
        k_pairs_of_bits(block.qs + 32, out + k_vectors / 2);
    }

    static MP_INLINE __m128i scales(const Block & block) { return _mm_and_si128(both(block), _mm_set1_epi8(15)); }

    static MP_INLINE __m128i mins(const Block & block) {
        return _mm_and_si128(_mm_srli_epi16(both(block), 4), _mm_set1_epi8(15));
    }

    static MP_INLINE __m128i both(const Block & block) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(block.scales));
    }
};

struct FormatIQ4XS : Format16 {
    using Block = BlockIQ4XS;
    static constexpr bool is_signed = true;

    static MP_INLINE void unpack(const Block & block, KLanes * out) {
        MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
            const uint8_t * qs = block.qs + 16 * k_parts * v;
            out[v] = k_join(look_up(uneven_steps, qs), look_up(uneven_steps, qs + 16 * (k_parts - 1)));
        }
    }

    // A scale for 32 elements is here twice one for 16.
    static MP_INLINE __m128i scales(const Block & block) {
        int32_t nibbles;
        __builtin_memcpy(&nibbles, block.scales_l, 4);
        const __m128i packed = _mm_cvtsi32_si128(nibbles);
        const __m128i low = _mm_and_si128(_mm_unpacklo_epi8(packed, _mm_srli_epi16(packed, 4)), _mm_set1_epi8(15));
        // Two bits of each, brought up to the end of 16 and down to where they belong.
        const __m128i up = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
        const __m128i high = _mm_mullo_epi16(_mm_set1_epi16(static_cast<short>(block.scales_h)), up);
        const __m128i raised_scales = _mm_or_si128(_mm_cvtepu8_epi16(low), _mm_slli_epi16(_mm_srli_epi16(high, 14), 4));
        const __m128i bytes = _mm_packs_epi16(_mm_sub_epi16(raised_scales, _mm_set1_epi16(32)), _mm_setzero_si128());
        return _mm_unpacklo_epi8(bytes, bytes);
    }
};

template <class Format> struct PlainK16 {
    using Quantized = BlockQ8K;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 256;
    static constexpr int tile = 8;
    static constexpr int columns = 16;

    // n x 256 activations, n x 16 sums of 16 as 16 bits, room for 8 scales; whole cache lines, as loads are.
    static size_t packed_block_bytes(int n) { return whole_lines(static_cast<size_t>(n) * (256 + 32) + 4 * tile); }

    static void pack_block(const Quantized * q, int row, int n, char * out) { pack_with_sums_of_16(*q, row, n, out); }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * blocks = static_cast<const typename Format::Block *>(weights) + column * n_blocks;
        for (int c = 0; c < count; ++c, blocks += n_blocks) {
            multiply_column<N>(blocks, n_blocks, packed, y + column + c, stride);
        }
    }

    template <int N>
    static MP_INLINE void multiply_column(const typename Format::Block * blocks, int64_t n_blocks, const char * packed,
                                          float * y, size_t stride) {
        __m256 sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = _mm256_setzero_ps(); }
        for (int64_t b = 0; b < n_blocks; ++b, packed += packed_block_bytes(N)) {
            const typename Format::Block & x = blocks[b];
            prefetch(reinterpret_cast<const char *>(&x) + 2048, sizeof x);
            KBlock unpacked;
            KSigns signs[k_vectors];
            Format::unpack(x, unpacked.elements);
            if constexpr (Format::is_signed) {
                MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
                    signs[v] = k_signs(unpacked.elements[v]);
                    unpacked.elements[v] = k_sizes(unpacked.elements[v]);
                }
            }
            const __m128i scale_bytes = Format::scales(x);
            spread_scales(scale_bytes, unpacked.scales);
            const __m256 row_d = _mm256_loadu_ps(reinterpret_cast<const float *>(packed + 288 * N));
            alignas(32) float d[tile];
            _mm256_store_ps(d, _mm256_mul_ps(row_d, _mm256_set1_ps(from_half(x.d))));
            __m256i offsets; // what the sums of 16 activations are multiplied with
            alignas(32) float dmin[tile];
            if constexpr (Format::has_min) {
                offsets = _mm256_cvtepu8_epi16(Format::mins(x));
                _mm256_store_ps(dmin, _mm256_mul_ps(row_d, _mm256_set1_ps(-from_half(x.dmin))));
            } else if constexpr (Format::raised > 0) {
                offsets = _mm256_sub_epi16(_mm256_setzero_si256(),
                                           _mm256_slli_epi16(_mm256_cvtepi8_epi16(scale_bytes), Format::raised));
            }
            MP_UNROLL for (int r = 0; r < N; ++r) {
                KLanes sum = k_zero();
                MP_UNROLL for (int v = 0; v < k_vectors; ++v) {
                    KLanes row = k_load(packed + 256 * r + v * k_bytes);
                    if constexpr (Format::is_signed) {
                        row = k_with_signs(row, signs[v]);
                    }
                    sum = k_add_scaled(sum, unpacked.elements[v], row, unpacked.scales[v]);
                }
                __m256i whole = k_fold(sum);
                const char * row_sums = packed + 256 * N + 32 * r;
                if constexpr (Format::has_min) {
                    const __m256i products = _mm256_madd_epi16(offsets, load32(row_sums));
                    sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(dmin[r]), _mm256_cvtepi32_ps(products), sums[r]);
                } else if constexpr (Format::raised > 0) {
                    whole = add_pairs(whole, load32(row_sums), offsets);
                }
                sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(d[r]), _mm256_cvtepi32_ps(whole), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) { y[static_cast<size_t>(r) * stride] = sum_lanes(sums[r]); }
    }
};

using PlainQ6K = PlainK16<FormatQ6K>;
using PlainQ3K = PlainK16<FormatQ3K>;
using PlainQ2K = PlainK16<FormatQ2K>;
using PlainIQ4XS = PlainK16<FormatIQ4XS>;

} // namespace mp::kernels::MP_KERNEL_SET
