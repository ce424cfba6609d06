// The keys that some queries may see, as many at a time as a vector has lanes. Those hidden from all of them, as the
// keys of other texts in the same cache are, are passed over as ggml passes over them one by one.
#pragma once

#include "attention_cache.h"

namespace mp::kernels::MP_KERNEL_SET {

// Places in the cache, in order; keys_per_block at most.
struct KeyBlock {
    int64_t at[keys_per_block];
    int n = 0;

    bool is_whole() const { return n == keys_per_block && at[n - 1] - at[0] == n - 1; }
};

class VisibleKeys {
public:
    explicit VisibleKeys(const Attention & all) : all_(all) {}

    // The next ones, none at the end.
    KeyBlock next() {
        KeyBlock block;
        while (block.n < keys_per_block && (bits_ != 0 || look())) {
            block.at[block.n++] = first_ + __builtin_ctz(bits_);
            bits_ &= bits_ - 1;
        }
        return block;
    }

private:
    // Goes on to the next place where keys can be seen. False if there is none.
    bool look() {
        while (bits_ == 0 && next_ < all_.cache.n_keys) {
            first_ = next_;
            next_ += keys_per_block;
            bits_ = bits_of(first_);
        }
        return bits_ != 0;
    }

    unsigned bits_of(int64_t first) const {
        const int64_t left = all_.cache.n_keys - first;
        const unsigned all = left < keys_per_block ? (1u << left) - 1 : (1u << (keys_per_block - 1) << 1) - 1;
        if (all_.masks == nullptr) {
            return all;
        }
        unsigned seen = 0;
        for (int q = 0; q < all_.n_queries && seen != all; ++q) {
            if (q == 0 || all_.masks[q] != all_.masks[q - 1]) { // heads share a row of the mask
                seen |= seen_by(all_.masks[q] + first, left);
            }
        }
        return seen;
    }

    static unsigned seen_by(const uint16_t * mask, int64_t left) {
        if (left >= keys_per_block) {
            return FloatLanes::bits(FloatLanes::differ(FloatLanes::load(mask), FloatLanes::set1(-__builtin_inff())));
        }
        unsigned seen = 0;
        for (int i = 0; i < left; ++i) {
            seen |= static_cast<unsigned>(mask[i] != hidden) << i;
        }
        return seen;
    }

    const Attention & all_;
    int64_t first_ = 0; // place of the first of bits_
    int64_t next_ = 0;
    unsigned bits_ = 0; // keys that have not been given out
};

} // namespace mp::kernels::MP_KERNEL_SET
