// Attention of some queries over one head's cache, with the bits of ggml's loop for one query: weighted values are
// added in the order of the keys, and all before them shrink at each new largest score.
//
// As many keys at a time as a vector has lanes, in three steps: scores of the keys; weights, for which the largest
// score before each key is known; values.
#pragma once

#include "visible_keys.h"

namespace mp::kernels::MP_KERNEL_SET {

template <template <int> class Keys, template <int> class Values, int Size> struct HeadAttention {
    using Floats = FloatLanes::Floats;
    static constexpr int lanes = FloatLanes::lanes;
    static constexpr int vectors = Size / lanes;
    static constexpr int in_registers = FloatLanes::registers / 2; // vectors of sums
    static constexpr int part = vectors <= in_registers       ? vectors
                                : vectors % in_registers == 0 ? in_registers
                                                              : vectors / 2;
    static_assert(vectors % part == 0 && part <= in_registers, "parts are equal");
    static constexpr int together = in_registers / part; // queries

    Keys<Size> keys;
    alignas(64) float sums[most_queries * Size];
    alignas(64) float values[keys_per_block * Size];
    alignas(64) float weight[most_queries][keys_per_block]; // one for each key
    alignas(64) float shrink[most_queries][keys_per_block]; // what a new largest score makes of the sums before it
    unsigned counts[most_queries];                          // keys that the mask lets through
    unsigned grows[most_queries];                           // keys whose score is the largest so far
    float largest[most_queries];
    float total[most_queries];

    void attend(const Attention & all) {
        keys.take_queries(all.queries, all.n_queries);
        for (int q = 0; q < all.n_queries; ++q) {
            largest[q] = -__builtin_inff();
            total[q] = 0.0f;
        }
        __builtin_memset(sums, 0, sizeof *sums * Size * static_cast<size_t>(all.n_queries));
        VisibleKeys visible(all);
        for (KeyBlock block = visible.next(); block.n > 0; block = visible.next()) {
            attend_to_block(all, block);
        }
        for (int q = 0; q < all.n_queries; ++q) {
            finish(q, all.sinks == nullptr ? nullptr : &all.sinks[q], all.out[q]);
        }
    }

private:
    void attend_to_block(const Attention & all, const KeyBlock & block) {
        alignas(64) float bias[most_queries][keys_per_block];
        const int n = block.n;
        for (int q = 0; q < all.n_queries; ++q) {
            counts[q] = take_mask(all.masks == nullptr ? nullptr : all.masks[q], block, bias[q]);
        }
        const char * key_rows[keys_per_block];
        const char * value_rows[keys_per_block];
        for (int i = 0; i < n; ++i) {
            const auto at = static_cast<size_t>(block.at[i]);
            key_rows[i] = static_cast<const char *>(all.cache.keys) + at * all.cache.key_stride;
            value_rows[i] = static_cast<const char *>(all.cache.values) + at * all.cache.value_stride;
        }
        keys.take_keys(key_rows, n);
        Values<Size>::unpack(value_rows, n, values);
        for (int q = 0; q < all.n_queries; ++q) {
            Floats score = FloatLanes::multiply(keys.scores(q), FloatLanes::set1(all.scale));
            if (all.cap != 0.0f) {
                score = capped(score, all.cap);
            }
            const Floats of_mask = FloatLanes::load(bias[q]);
            const Floats minus_infinity = FloatLanes::set1(-__builtin_inff());
            weigh(q, FloatLanes::select(FloatLanes::differ(of_mask, minus_infinity), FloatLanes::add(score, of_mask),
                                        minus_infinity));
        }
        for (int i = 0; i < n; ++i) {
            for (int q = 0; q < all.n_queries; ++q) {
                total[q] = __builtin_fmaf(total[q], shrink[q][i], weight[q][i]);
            }
        }
        int q = 0;
        for (; q + together <= all.n_queries; q += together) {
            add_values<together>(q, n);
        }
        for (; q < all.n_queries; ++q) {
            add_values<1>(q, n);
        }
    }

    // Which keys of a block count, and what is added to their scores; past them -infinity.
    static unsigned take_mask(const uint16_t * mask, const KeyBlock & block, float * bias) {
        alignas(64) uint16_t gathered[keys_per_block];
        if (mask != nullptr && block.is_whole()) {
            mask += block.at[0];
        } else {
            for (int i = 0; i < keys_per_block; ++i) {
                gathered[i] = i >= block.n ? hidden : mask == nullptr ? uint16_t{0} : mask[block.at[i]];
            }
            mask = gathered;
        }
        const Floats all = FloatLanes::load(mask);
        FloatLanes::store(bias, all);
        return FloatLanes::bits(FloatLanes::differ(all, FloatLanes::set1(-__builtin_inff())));
    }

    static Floats capped(Floats score, float cap) {
        alignas(64) float each[lanes];
        FloatLanes::store(each, score);
        for (float & x : each) {
            x = cap * __builtin_tanhf(x);
        }
        return FloatLanes::load(each);
    }

    MP_INLINE void weigh(int q, Floats score) {
        const Floats before = FloatLanes::set1(largest[q]);
        grows[q] = FloatLanes::bits(FloatLanes::greater(score, before));
        if (__builtin_expect(grows[q] != 0, 0)) {
            return weigh_growing(q, score);
        }
        FloatLanes::store(weight[q], FloatLanes::exp_of_negative(FloatLanes::subtract(score, before)));
        FloatLanes::store(shrink[q], FloatLanes::set1(1.0f));
    }

    void weigh_growing(int q, Floats score) {
        alignas(64) float scores[lanes];
        alignas(64) float powers[lanes];
        FloatLanes::store(scores, score);
        grows[q] = 0;
        for (int i = 0; i < lanes; ++i) {
            const bool is_largest = scores[i] > largest[q];
            powers[i] = is_largest ? largest[q] - scores[i] : scores[i] - largest[q];
            grows[q] |= static_cast<unsigned>(is_largest) << i;
            largest[q] = is_largest ? scores[i] : largest[q];
        }
        FloatLanes::store(powers, FloatLanes::exp_of_negative(FloatLanes::load(powers)));
        for (int i = 0; i < lanes; ++i) {
            const bool is_largest = (grows[q] >> i & 1) != 0;
            weight[q][i] = is_largest ? 1.0f : powers[i];
            shrink[q][i] = is_largest ? powers[i] : 1.0f;
        }
    }

    // For N queries from first on; a part of a head after another, so that registers hold the sums.
    template <int N> MP_INLINE void add_values(int first, int n) {
        bool is_simple = true; // every key counts, and no score is the largest
        for (int q = first; q < first + N; ++q) {
            is_simple = is_simple && counts[q] == (1u << n) - 1 && grows[q] == 0;
        }
        for (int at = 0; at < Size; at += part * lanes) {
            is_simple ? add_part<N, true>(first, at, n) : add_part<N, false>(first, at, n);
        }
    }

    template <int N, bool Simple> MP_INLINE void add_part(int first, int at, int n) {
        Floats sum[N][part];
        MP_UNROLL for (int q = 0; q < N; ++q) {
            MP_UNROLL for (int c = 0; c < part; ++c) {
                sum[q][c] = FloatLanes::load(sums + (first + q) * Size + at + c * lanes);
            }
        }
        for (int i = 0; i < n; ++i) {
            MP_UNROLL for (int q = 0; q < N; ++q) {
                if (!Simple && (counts[first + q] >> i & 1) == 0) {
                    continue; // such a value may be no number
                }
                if (!Simple && (grows[first + q] >> i & 1) != 0) {
                    const Floats factor = FloatLanes::set1(shrink[first + q][i]);
                    MP_UNROLL for (int c = 0; c < part; ++c) {
                        sum[q][c] = Values<Size>::rounded(FloatLanes::multiply(sum[q][c], factor));
                    }
                }
                const Floats factor = FloatLanes::set1(weight[first + q][i]);
                MP_UNROLL for (int c = 0; c < part; ++c) {
                    const Floats value = FloatLanes::load(values + i * Size + at + c * lanes);
                    sum[q][c] = Values<Size>::rounded(FloatLanes::multiply_add(value, factor, sum[q][c]));
                }
            }
        }
        MP_UNROLL for (int q = 0; q < N; ++q) {
            MP_UNROLL for (int c = 0; c < part; ++c) {
                FloatLanes::store(sums + (first + q) * Size + at + c * lanes, sum[q][c]);
            }
        }
    }

    // A sink takes its share of the weights and gives nothing.
    void finish(int q, const float * sink, float * out) {
        Floats shrunk = FloatLanes::set1(1.0f);
        if (sink != nullptr) {
            const bool is_largest = *sink > largest[q];
            const float power = __builtin_expf(is_largest ? largest[q] - *sink : *sink - largest[q]);
            shrunk = FloatLanes::set1(is_largest ? power : 1.0f);
            total[q] = is_largest ? __builtin_fmaf(total[q], power, 1.0f) : total[q] + power;
        }
        const Floats inverse = FloatLanes::set1(total[q] == 0.0f ? 0.0f : 1.0f / total[q]);
        for (int c = 0; c < Size; c += lanes) {
            const Floats sum = FloatLanes::load(sums + q * Size + c);
            FloatLanes::store(out + c, FloatLanes::multiply(FloatLanes::multiply(sum, shrunk), inverse));
        }
    }
};

template <template <int> class Keys, template <int> class Values, int Size> void attend(const Attention & all) {
    HeadAttention<Keys, Values, Size> attention;
    attention.attend(all);
}

template <template <int> class Keys, template <int> class Values> Attend attention_of(int head_size) {
    switch (head_size) {
    case 64: return attend<Keys, Values, 64>;
    case 128: return attend<Keys, Values, 128>;
    case 256: return attend<Keys, Values, 256>;
    case 512: return attend<Keys, Values, 512>;
    default: break;
    }
    if constexpr (FloatLanes::lanes == 8) {
        switch (head_size) {
        case 32: return attend<Keys, Values, 32>;
        case 96: return attend<Keys, Values, 96>;
        default: break;
        }
    }
    return nullptr;
}

inline Attend find(int head_size, CacheType type) {
    return type == CacheType::f16 ? attention_of<F16Keys, F16Values>(head_size)
                                  : attention_of<Q8Keys, Q8Values>(head_size);
}

} // namespace mp::kernels::MP_KERNEL_SET
