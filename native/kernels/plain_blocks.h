// Blocks of 32 elements as the file has them, one column after another: ggml_vec_dot_*'s order. A block gives 8 exact
// integer sums of 4 products each, which 8 float lanes take up block by block. Formats of even steps are here, those
// whose elements are looked up in lookup_blocks.h.
#pragma once

#include "blocks.h"
#include "lookup.h"
#include "simd.h"

namespace mp::kernels::MP_KERNEL_SET {

// What most formats are like.
struct PlainFormat {
    static constexpr bool has_min = false;
    static constexpr bool wide = false; // bytes beyond what 16-bit sums of two products hold
    static constexpr int turns = 1;     // float sums that take up blocks in turn
    template <class Block> static MP_INLINE Lanes::Floats scales(const Block & one, const Block & other) {
        return Lanes::join_halves(one.d, other.d);
    }
};

// A format: its block and the block's elements as signed bytes.
struct FormatQ4_0 : PlainFormat {
    using Block = BlockQ4_0;
    using Quantized = BlockQ8_0;
    static MP_INLINE __m256i elements(const Block & block) {
        return _mm256_sub_epi8(nibbles(block.qs), _mm256_set1_epi8(8));
    }
};

struct FormatQ4_1 : PlainFormat {
    using Block = BlockQ4_1;
    using Quantized = BlockQ8_1;
    static constexpr bool has_min = true;
    static MP_INLINE __m256i elements(const Block & block) { return nibbles(block.qs); }
};

// All bits in the bytes whose fifth bit, of 32, is clear.
MP_INLINE __m256i clear_bits(const uint8_t * from) {
    int32_t bits;
    __builtin_memcpy(&bits, from, 4);
    const __m256i byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), byte_of);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit_of), _mm256_setzero_si256());
}

struct FormatQ5_0 : PlainFormat {
    using Block = BlockQ5_0;
    using Quantized = BlockQ8_0;
    static MP_INLINE __m256i elements(const Block & block) {
        // Bytes whose fifth bit is clear become negative: the element less 16.
        const __m256i negative = _mm256_set1_epi8(static_cast<char>(0xf0));
        return _mm256_or_si256(nibbles(block.qs), _mm256_and_si256(clear_bits(block.qh), negative));
    }
};

struct FormatQ5_1 : PlainFormat {
    using Block = BlockQ5_1;
    using Quantized = BlockQ8_1;
    static constexpr bool has_min = true;
    static MP_INLINE __m256i elements(const Block & block) {
        return _mm256_or_si256(nibbles(block.qs), _mm256_andnot_si256(clear_bits(block.qh), _mm256_set1_epi8(16)));
    }
};

struct FormatQ8_0 : PlainFormat {
    using Block = BlockQ8_0;
    using Quantized = BlockQ8_0;
    static constexpr bool wide = true;
    static MP_INLINE __m256i elements(const Block & block) { return load32(block.qs); }
};

template <class Format> struct PlainBlocks {
    using Quantized = typename Format::Quantized;
    static constexpr int turns = Format::turns;
    static constexpr int quantized_per_block = turns;
    static constexpr int block = 32 * turns;
    static constexpr int tile = 8;
    static constexpr int columns = 8;
    static constexpr bool by_sign = Format::wide && !has_byte_dots;

    static constexpr size_t packed_block_bytes(int n) { return turns * packed_turn_bytes(n); }

    // n x 32 bytes: activations plus 128, or as they are where signs decide; n scales; with a min, room for 8 sums.
    static constexpr size_t packed_turn_bytes(int n) {
        const size_t bytes = static_cast<size_t>(n) * 36 + (Format::has_min ? 4 * tile : 0);
        return (bytes + 31) / 32 * 32; // so that loads of 32 bytes stay within a cache line
    }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        for (int t = 0; t < turns; ++t) {
            pack_turn(q + t, row, n, out + t * packed_turn_bytes(n));
        }
    }

    static MP_INLINE void pack_turn(const Quantized * q, int row, int n, char * out) {
        const __m256i bytes = load32(q->qs);
        const __m256i shifted = _mm256_xor_si256(bytes, _mm256_set1_epi8(static_cast<char>(128)));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + 32 * row), by_sign ? bytes : shifted);
        float * scales = reinterpret_cast<float *>(out + 32 * n);
        scales[row] = from_half(q->d);
        if constexpr (Format::has_min) {
            scales[n + row] = from_half(q->s);
        }
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        constexpr int most = N <= 4 ? 4 : 2; // vectors of columns at once, by registers
        constexpr int vectors = Lanes::columns * most <= columns ? most : columns / Lanes::columns;
        n_blocks *= turns;
        const auto * first = static_cast<const typename Format::Block *>(weights) + column * n_blocks;
        float * out = y + column;
        while (count >= Lanes::columns * vectors) {
            multiply_columns<N, vectors>(first, n_blocks, packed, out, stride);
            first += Lanes::columns * vectors * n_blocks;
            out += Lanes::columns * vectors;
            count -= Lanes::columns * vectors;
        }
        for (; count >= Lanes::columns; count -= Lanes::columns) {
            multiply_columns<N, 1>(first, n_blocks, packed, out, stride);
            first += Lanes::columns * n_blocks;
            out += Lanes::columns;
        }
        if (count > 0) {
            multiply_columns<N, 1, true>(first, n_blocks, packed, out, stride);
        }
    }

    // The products of every block whose turn it is.
    template <int N, int V>
    static MP_INLINE void add_blocks(const typename Format::Block * first, int64_t second, int64_t n_blocks,
                                     const char * packed, int turn, typename Lanes::Floats (&sums)[V][N],
                                     __m256 (&mins)[V * Lanes::columns]) {
        const auto * next = reinterpret_cast<const char *>(first + Lanes::columns * V * n_blocks);
        constexpr size_t step = sizeof(typename Format::Block) * Lanes::columns * V;
        packed += turn * packed_turn_bytes(N);
        for (int64_t b = turn; b < n_blocks; b += turns, packed += packed_block_bytes(N)) {
            prefetch(next + static_cast<size_t>(b) * step, step);
            const float * scales = reinterpret_cast<const float *>(packed + 32 * N);
            typename Lanes::Ints elements[V];
            typename Lanes::Ints start[V]; // takes back the 128 that was added to every activation
            typename Lanes::Floats d[V];
            MP_UNROLL for (int v = 0; v < V; ++v) {
                const auto & one = first[Lanes::columns * v * n_blocks + b];
                const auto & other = first[Lanes::columns * v * n_blocks + second + b];
                elements[v] = Lanes::join(Format::elements(one), Format::elements(other));
                d[v] = Format::scales(one, other);
                start[v] = Lanes::zero();
                if constexpr (!by_sign) {
                    start[v] =
                        Lanes::subtract(Lanes::zero(), Lanes::dot(Lanes::zero(), Lanes::set1_bytes(128), elements[v]));
                }
                if constexpr (Format::has_min) {
                    add_min(mins[Lanes::columns * v], one.m, scales + N);
                    if constexpr (Lanes::columns == 2) {
                        add_min(mins[2 * v + 1], other.m, scales + N);
                    }
                }
            }
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const typename Lanes::Ints row = Lanes::spread(load32(packed + 32 * r));
                const typename Lanes::Floats row_d = Lanes::set1(scales[r]);
                MP_UNROLL for (int v = 0; v < V; ++v) {
                    sums[v][r] =
                        Lanes::multiply_add(Lanes::multiply(d[v], row_d),
                                            Lanes::to_floats(products(start[v], row, elements[v])), sums[v][r]);
                }
            }
        }
    }

    // Columns in V vectors; Half: of the last vector only the first column is there.
    template <int N, int V, bool Half = false>
    static MP_INLINE void multiply_columns(const typename Format::Block * first, int64_t n_blocks, const char * packed,
                                           float * y, size_t stride) {
        const int64_t second = Half || Lanes::columns == 1 ? 0 : n_blocks;
        typename Lanes::Floats sums[V][N];
        __m256 mins[V * Lanes::columns]; // a lane per row
        MP_UNROLL for (int v = 0; v < V; ++v) {
            MP_UNROLL for (int r = 0; r < N; ++r) { sums[v][r] = Lanes::zero_floats(); }
            MP_UNROLL for (int c = 0; c < Lanes::columns; ++c) { mins[Lanes::columns * v + c] = _mm256_setzero_ps(); }
        }
        add_blocks<N, V>(first, second, n_blocks, packed, 0, sums, mins);
        if constexpr (turns == 2) {
            // The second turn's blocks afterwards, so that registers hold the sums of as many columns and rows.
            typename Lanes::Floats others[V][N];
            MP_UNROLL for (int v = 0; v < V; ++v) {
                MP_UNROLL for (int r = 0; r < N; ++r) { others[v][r] = Lanes::zero_floats(); }
            }
            add_blocks<N, V>(first, second, n_blocks, packed, 1, others, mins);
            MP_UNROLL for (int v = 0; v < V; ++v) {
                MP_UNROLL for (int r = 0; r < N; ++r) { sums[v][r] = Lanes::add(sums[v][r], others[v][r]); }
            }
        }
        MP_UNROLL for (int v = 0; v < V; ++v) {
            alignas(32) float lows[Lanes::columns][tile];
            MP_UNROLL for (int c = 0; c < Lanes::columns; ++c) {
                _mm256_store_ps(lows[c], mins[Lanes::columns * v + c]);
            }
            MP_UNROLL for (int r = 0; r < N; ++r) {
                float * out = y + static_cast<size_t>(r) * stride + Lanes::columns * v;
                out[0] = with_min(Lanes::template sum_of<0>(sums[v][r]), lows[0][r]);
                if constexpr (Lanes::columns == 2 && !Half) {
                    out[1] = with_min(Lanes::template sum_of<1>(sums[v][r]), lows[1][r]);
                }
            }
        }
    }

    static MP_INLINE typename Lanes::Ints products(typename Lanes::Ints start, typename Lanes::Ints row,
                                                   typename Lanes::Ints elements) {
#if defined(MP_AVX512_VNNI) || defined(MP_AVX_VNNI)
        return Lanes::dot(start, row, elements);
#else
        if constexpr (by_sign) {
            return Lanes::dot(start, _mm256_sign_epi8(elements, elements), _mm256_sign_epi8(row, elements));
        } else {
            return Lanes::dot(start, row, elements);
        }
#endif
    }

    // ggml's "sum += m * s" is compiled to one rounding.
    static MP_INLINE void add_min(__m256 & min, uint16_t m, const float * sums) {
        const __m128i half = _mm_set1_epi16(static_cast<short>(m));
        min = _mm256_fmadd_ps(_mm256_cvtph_ps(half), _mm256_loadu_ps(sums), min);
    }

    static MP_INLINE float with_min(float sum, float min) { return Format::has_min ? sum + min : sum; }
};

} // namespace mp::kernels::MP_KERNEL_SET
