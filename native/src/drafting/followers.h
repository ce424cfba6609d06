// What followed in contexts that are given by keys: counts in a table of fixed size, so that it may learn for ever; to
// learn a token and to look one up take constant time. What a context is, is its users' affair.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mp {

class FollowerTable {
public:
    static constexpr size_t most_orders = 3; // keys of one place in a text
    static constexpr size_t n_listed = 8;    // candidates

    // n_contexts: places for the contexts of each order, 32 bytes each.
    FollowerTable(size_t n_orders, size_t n_contexts) : n_orders_(n_orders), n_contexts_(n_contexts) {}

    // Keys of the contexts in which a token stands, the widest first; at most n_orders.
    using Keys = std::array<uint64_t, most_orders>;

    struct List {
        std::array<int32_t, n_listed> tokens;
        std::array<float, n_listed> logps;
        size_t n = 0;
    };

    void learn(const Keys & keys, size_t n_keys, int32_t follower);
    // The likeliest followers, best first.
    List find(const Keys & keys, size_t n_keys) const;
    void forget() { contexts_.clear(); }

private:
    static constexpr size_t n_followers = 4; // kept of each context

    struct Context {
        uint32_t tag;  // tells contexts apart whose places are the same
        uint16_t seen; // how often, also before followers that are not kept; 0: the place is free
        std::array<uint16_t, n_followers> count;
        std::array<int32_t, n_followers> token;

        void halve();
        void add(int32_t follower);
    };
    size_t place_of(uint64_t key, size_t order) const { return order * n_contexts_ + key % n_contexts_; }
    static uint32_t tag_of(uint64_t key) { return static_cast<uint32_t>(key >> 32); }

    size_t n_orders_;
    size_t n_contexts_;
    std::vector<Context> contexts_; // [n_orders, n_contexts]; empty until first used
};

} // namespace mp
