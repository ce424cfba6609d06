// Attention of some queries over one head's cache of half floats, with the bits of ggml's loop for one query: sums of
// the weighted values are rounded to half floats after every key, in the order of the keys.
//
// Sixteen keys at a time are unpacked for all queries. Three steps: scores, whose lanes are added in the order of
// _mm512_reduce_add_ps; weights, for which the largest score so far stands before each key; values.
#pragma once

#include "exp.h"
#include "floats.h"

namespace mp::kernels::MP_KERNEL_SET {

#if defined(MP_AVX512_VNNI)

constexpr int keys_per_block = 16;

MP_INLINE __m512 through_half(__m512 x) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// The lane sums of sixteen vectors: halves, quarters, pairs and single lanes are added in turn.
MP_INLINE __m512 lane_sums(const __m512 (&x)[16]) {
    __m512 halves[8];
    MP_UNROLL for (int i = 0; i < 8; ++i) {
        halves[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xee),
                                  _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x44));
    }
    __m512 quarters[4];
    MP_UNROLL for (int i = 0; i < 4; ++i) {
        quarters[i] = _mm512_add_ps(_mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0xdd),
                                    _mm512_shuffle_f32x4(halves[2 * i], halves[2 * i + 1], 0x88));
    }
    __m512 pairs[2];
    MP_UNROLL for (int i = 0; i < 2; ++i) {
        const __m512d a = _mm512_castps_pd(quarters[2 * i]);
        const __m512d b = _mm512_castps_pd(quarters[2 * i + 1]);
        pairs[i] =
            _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const __m512 sums =
        _mm512_add_ps(_mm512_shuffle_ps(pairs[0], pairs[1], 0x88), _mm512_shuffle_ps(pairs[0], pairs[1], 0xdd));
    // Lane 4 j + p has the sum of vector 4 p + j.
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), sums);
}

template <int N> MP_INLINE __m512 shifted_in(__m512 x, __m512 filler) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(x), _mm512_castps_si512(filler), 16 - N));
}

// The largest of each lane and those before it.
MP_INLINE __m512 running_maximum(__m512 x) {
    const __m512 none = _mm512_set1_ps(-__builtin_inff());
    x = _mm512_max_ps(x, shifted_in<1>(x, none));
    x = _mm512_max_ps(x, shifted_in<2>(x, none));
    x = _mm512_max_ps(x, shifted_in<4>(x, none));
    return _mm512_max_ps(x, shifted_in<8>(x, none));
}

// Queries: how many; Size: elements of a head.
template <int Queries, int Size> struct HeadAttention {
    static constexpr int vectors = Size / 16;
    static constexpr int together = vectors <= 4 ? 4 : vectors <= 8 ? 2 : 1; // queries whose sums fit the registers

    __m512 sums[Queries][vectors];
    alignas(64) float rows[Queries * Size]; // the queries
    alignas(64) float keys[keys_per_block * Size];
    alignas(64) float values[keys_per_block * Size];
    alignas(64) float weight[Queries][keys_per_block]; // of each key
    alignas(64) float shrink[Queries][keys_per_block]; // what a new largest score makes of the sums before it
    __mmask16 counts[Queries];                         // keys that the mask lets through
    __mmask16 grows[Queries];                          // keys whose score is the largest so far
    float largest[Queries];
    float total[Queries];

    void attend(const HeadCache & cache, const uint16_t * queries, const uint16_t * const * masks, float scale,
                float * const * out) {
        unpack(queries, Size, Queries, rows);
        for (int q = 0; q < Queries; ++q) {
            largest[q] = -__builtin_inff();
            total[q] = 0.0f;
            for (int c = 0; c < vectors; ++c) {
                sums[q][c] = _mm512_setzero_ps();
            }
        }
        for (int64_t first = 0; first < cache.n_keys; first += keys_per_block) {
            const int n =
                static_cast<int>(cache.n_keys - first < keys_per_block ? cache.n_keys - first : keys_per_block);
            const auto all = static_cast<__mmask16>((1u << n) - 1);
            unsigned any = 0;
            for (int q = 0; q < Queries; ++q) {
                counts[q] = masks == nullptr ? all : unmasked(masks[q] + first, all);
                any |= counts[q];
            }
            if (any == 0) {
                continue;
            }
            unpack(cache.keys + static_cast<size_t>(first) * cache.key_stride, cache.key_stride, n, keys);
            unpack(cache.values + static_cast<size_t>(first) * cache.value_stride, cache.value_stride, n, values);
            for (int q = 0; q < Queries; ++q) {
                const __m512 bias = masks == nullptr ? _mm512_setzero_ps()
                                                     : _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(all, masks[q] + first));
                weigh(q, _mm512_add_ps(_mm512_mul_ps(scores(rows + q * Size), _mm512_set1_ps(scale)), bias));
            }
            for (int i = 0; i < n; ++i) {
                for (int q = 0; q < Queries; ++q) {
                    total[q] = __builtin_fmaf(total[q], shrink[q][i], weight[q][i]);
                }
            }
            if constexpr (Queries >= together) {
                for (int q = 0; q + together <= Queries; q += together) {
                    add_values<together>(q);
                }
            }
            for (int q = Queries / together * together; q < Queries; ++q) {
                add_values<1>(q);
            }
        }
        for (int q = 0; q < Queries; ++q) {
            const __m512 inverse = _mm512_set1_ps(total[q] == 0.0f ? 0.0f : 1.0f / total[q]);
            for (int c = 0; c < vectors; ++c) {
                _mm512_storeu_ps(out[q] + 16 * c, _mm512_mul_ps(sums[q][c], inverse));
            }
        }
    }

private:
    static __mmask16 unmasked(const uint16_t * mask, __mmask16 all) {
        constexpr short minus_infinity = static_cast<short>(0xfc00);
        const __m256i halves = _mm256_maskz_loadu_epi16(all, mask);
        return static_cast<__mmask16>(all & ~_mm256_cmpeq_epi16_mask(halves, _mm256_set1_epi16(minus_infinity)));
    }

    static void unpack(const uint16_t * from, size_t stride, int n, float * to) {
        for (int i = 0; i < n; ++i) {
            MP_UNROLL for (int c = 0; c < vectors; ++c) {
                _mm512_store_ps(to + i * Size + 16 * c,
                                WideFloats::load(from + static_cast<size_t>(i) * stride + 16 * c));
            }
        }
    }

    // Four sums take turns along a head, as in ggml_vec_dot_f16.
    MP_INLINE __m512 scores(const float * query) const {
        __m512 products[keys_per_block];
        MP_UNROLL for (int i = 0; i < keys_per_block; ++i) {
            __m512 parts[4];
            MP_UNROLL for (int j = 0; j < 4; ++j) {
                parts[j] = _mm512_mul_ps(_mm512_load_ps(keys + i * Size + 16 * j), _mm512_load_ps(query + 16 * j));
                for (int c = j + 4; c < vectors; c += 4) {
                    parts[j] = _mm512_fmadd_ps(_mm512_load_ps(keys + i * Size + 16 * c), _mm512_load_ps(query + 16 * c),
                                               parts[j]);
                }
            }
            products[i] = _mm512_add_ps(_mm512_add_ps(parts[0], parts[2]), _mm512_add_ps(parts[1], parts[3]));
        }
        return lane_sums(products);
    }

    MP_INLINE void weigh(int q, __m512 score) {
        score = _mm512_mask_blend_ps(counts[q], _mm512_set1_ps(-__builtin_inff()), score);
        const __m512 before_all = _mm512_set1_ps(largest[q]);
        const __m512 after = _mm512_max_ps(running_maximum(score), before_all);
        const __m512 before = shifted_in<1>(after, before_all);
        grows[q] = _mm512_mask_cmp_ps_mask(counts[q], score, before, _CMP_GT_OQ);
        const __m512 difference = _mm512_mask_sub_ps(_mm512_sub_ps(score, before), grows[q], before, score);
        const __m512 power = exp_of_negative(difference);
        const __m512 one = _mm512_set1_ps(1.0f);
        _mm512_store_ps(weight[q], _mm512_maskz_mov_ps(counts[q], _mm512_mask_blend_ps(grows[q], power, one)));
        _mm512_store_ps(shrink[q], _mm512_mask_blend_ps(grows[q], one, power));
        largest[q] = _mm_cvtss_f32(_mm_permute_ps(_mm512_extractf32x4_ps(after, 3), 0xff));
    }

    template <int N> MP_INLINE void add_values(int first) {
        __m512 sum[N][vectors];
        unsigned left = 0;
        for (int q = 0; q < N; ++q) {
            left |= counts[first + q];
            MP_UNROLL for (int c = 0; c < vectors; ++c) { sum[q][c] = sums[first + q][c]; }
        }
        for (; left != 0; left &= left - 1) {
            const int i = __builtin_ctz(left);
            MP_UNROLL for (int q = 0; q < N; ++q) {
                if (__builtin_expect(grows[first + q] >> i & 1, 0)) {
                    const __m512 factor = _mm512_set1_ps(shrink[first + q][i]);
                    MP_UNROLL for (int c = 0; c < vectors; ++c) {
                        sum[q][c] = through_half(_mm512_mul_ps(sum[q][c], factor));
                    }
                }
                // A value that does not count may be no number.
                const __mmask16 counted = counts[first + q] >> i & 1 ? 0xffff : 0;
                const __m512 factor = _mm512_set1_ps(weight[first + q][i]);
                MP_UNROLL for (int c = 0; c < vectors; ++c) {
                    const __m512 value = _mm512_load_ps(values + i * Size + 16 * c);
                    sum[q][c] = through_half(_mm512_mask3_fmadd_ps(value, factor, sum[q][c], counted));
                }
            }
        }
        for (int q = 0; q < N; ++q) {
            MP_UNROLL for (int c = 0; c < vectors; ++c) { sums[first + q][c] = sum[q][c]; }
        }
    }
};

template <int Queries, int Size>
void attend(const HeadCache & cache, const uint16_t * queries, const uint16_t * const * masks, float scale,
            float * const * out) {
    HeadAttention<Queries, Size> attention;
    attention.attend(cache, queries, masks, scale, out);
}

template <int Size>
void attend_some(const HeadCache & cache, const uint16_t * queries, const uint16_t * const * masks, int n, float scale,
                 float * const * out) {
    using Attend = void (*)(const HeadCache &, const uint16_t *, const uint16_t * const *, float, float * const *);
    static constexpr Attend by_number[most_queries] = {attend<1, Size>, attend<2, Size>, attend<3, Size>,
                                                       attend<4, Size>, attend<5, Size>, attend<6, Size>,
                                                       attend<7, Size>, attend<8, Size>};
    by_number[n - 1](cache, queries, masks, scale, out);
}

#endif

} // namespace mp::kernels::MP_KERNEL_SET
