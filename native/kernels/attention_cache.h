// What a cache of keys and values may be made of: half floats, or blocks of Q8_0. Keys give the scores of some queries,
// values are unpacked; both as many at a time as a vector has lanes, for all queries, wherever in the cache they are.
#pragma once

#include "blocks.h"
#include "float_lanes.h"

namespace mp::kernels::MP_KERNEL_SET {

constexpr int keys_per_block = FloatLanes::lanes;

// Half floats, in the order of ggml_vec_dot_f16: four sums take turns along a head.
template <int Size> struct F16Keys {
    static_assert(Size % (4 * FloatLanes::lanes) == 0, "ggml adds what is left over one by one");
    static constexpr int vectors = Size / FloatLanes::lanes;

    alignas(64) float queries[most_queries * Size];
    alignas(64) float keys[keys_per_block * Size];

    void take_queries(const void * from, int n) {
        for (int i = 0; i < n * vectors; ++i) {
            FloatLanes::store(queries + i * FloatLanes::lanes,
                              FloatLanes::load(static_cast<const uint16_t *>(from) + i * FloatLanes::lanes));
        }
    }

    void take_keys(const char * const * from, int n) { unpack(from, n, keys); }

    static void unpack(const char * const * from, int n, float * to) {
        for (int i = 0; i < n; ++i, to += Size) {
            const auto * halves = reinterpret_cast<const uint16_t *>(from[i]);
            MP_UNROLL for (int c = 0; c < vectors; ++c) {
                FloatLanes::store(to + c * FloatLanes::lanes, FloatLanes::load(halves + c * FloatLanes::lanes));
            }
        }
    }

    FloatLanes::Floats scores(int query) const {
        const float * row = queries + query * Size;
        FloatLanes::Floats products[keys_per_block];
        MP_UNROLL for (int i = 0; i < keys_per_block; ++i) {
            const float * key = keys + i * Size;
            FloatLanes::Floats parts[4];
            MP_UNROLL for (int j = 0; j < 4; ++j) {
                const int first = j * FloatLanes::lanes;
                parts[j] = FloatLanes::multiply(FloatLanes::load(key + first), FloatLanes::load(row + first));
                for (int at = first + 4 * FloatLanes::lanes; at < Size; at += 4 * FloatLanes::lanes) {
                    parts[j] =
                        FloatLanes::multiply_add(FloatLanes::load(key + at), FloatLanes::load(row + at), parts[j]);
                }
            }
            products[i] = FloatLanes::add(FloatLanes::add(parts[0], parts[2]), FloatLanes::add(parts[1], parts[3]));
        }
        return FloatLanes::sums(products);
    }
};

template <int Size> struct F16Values {
    static void unpack(const char * const * from, int n, float * to) { F16Keys<Size>::unpack(from, n, to); }
    // ggml keeps the sums as half floats.
    static MP_INLINE FloatLanes::Floats rounded(FloatLanes::Floats sum) { return FloatLanes::through_half(sum); }
};

// Blocks of 32, in the order of ggml_vec_dot_q8_0_q8_0: eight exact integer sums of a block, which eight float lanes
// take up block by block.
template <int Size> struct Q8Keys {
    static constexpr int n_blocks = Size / 32;

    const BlockQ8_0 * queries;
    float query_scales[most_queries * n_blocks];
    alignas(64) int8_t keys[keys_per_block * Size];
    float key_scales[keys_per_block * n_blocks];

    void take_queries(const void * from, int n) {
        queries = static_cast<const BlockQ8_0 *>(from);
        for (int i = 0; i < n * n_blocks; ++i) {
            query_scales[i] = from_half(queries[i].d);
        }
    }

    void take_keys(const char * const * from, int n) {
        for (int i = 0; i < n; ++i) {
            const auto * blocks = reinterpret_cast<const BlockQ8_0 *>(from[i]);
            for (int b = 0; b < n_blocks; ++b) {
                key_scales[i * n_blocks + b] = from_half(blocks[b].d);
                __builtin_memcpy(keys + i * Size + 32 * b, blocks[b].qs, 32);
            }
        }
    }

    FloatLanes::Floats scores(int query) const {
        const BlockQ8_0 * row = queries + query * n_blocks;
        __m256 products[keys_per_block];
        MP_UNROLL for (int i = 0; i < keys_per_block; ++i) {
            products[i] = _mm256_setzero_ps();
            for (int b = 0; b < n_blocks; ++b) {
                const __m256i key = load32(keys + i * Size + 32 * b);
                const __m256i signs_moved = _mm256_sign_epi8(load32(row[b].qs), key);
                const __m256i sums = Lanes256::dot(Lanes256::zero(), _mm256_sign_epi8(key, key), signs_moved);
                const __m256 scale = _mm256_set1_ps(key_scales[i * n_blocks + b] * query_scales[query * n_blocks + b]);
                products[i] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums), products[i]);
            }
        }
        return FloatLanes::sums_of_eight(products);
    }
};

template <int Size> struct Q8Values {
    static void unpack(const char * const * from, int n, float * to) {
        for (int i = 0; i < n; ++i) {
            const auto * blocks = reinterpret_cast<const BlockQ8_0 *>(from[i]);
            for (int b = 0; b < Size / 32; ++b) {
                const FloatLanes::Floats d = FloatLanes::set1(from_half(blocks[b].d));
                MP_UNROLL for (int j = 0; j < 32; j += FloatLanes::lanes, to += FloatLanes::lanes) {
                    FloatLanes::store(to, FloatLanes::multiply(FloatLanes::load(blocks[b].qs + j), d));
                }
            }
        }
    }
    // ggml keeps the sums as floats.
    static MP_INLINE FloatLanes::Floats rounded(FloatLanes::Floats sum) { return sum; }
};

} // namespace mp::kernels::MP_KERNEL_SET
