// History source: what followed the last tokens in texts that the model wrote earlier. Counts live in a table of fixed
// size, so a session may go on for ever; a token to learn and a node to look at take constant time. When a text is
// over, and which of its tokens the model wrote, is the drafter's to say.
#pragma once

#include "drafting/sources.h"

#include <utility>

namespace mp {

class HistorySource {
public:
    // The tokens from the given one on were written by the model, each after those before it.
    void learn(const std::vector<int32_t> & tokens, size_t from);
    void forget() { contexts_.clear(); }

    void propose(const NodeContext & node, CandidateSet & out) const;

private:
    static constexpr size_t n_orders = 3;            // contexts of the last 1, 2 and 3 tokens
    static constexpr size_t n_contexts = 1ull << 17; // places for each order: 12 MiB in all
    static constexpr size_t n_followers = 4;         // kept of each context
    static constexpr size_t n_listed = 8;            // candidates for a node

    struct Context {
        uint32_t tag;  // tells contexts apart whose places are the same
        uint16_t seen; // how often, also before followers that are not kept; 0: the place is free
        std::array<uint16_t, n_followers> count;
        std::array<int32_t, n_followers> token;

        void halve();
        void add(int32_t follower);
    };
    // The place and the tag of the context that the last `order` tokens before end are.
    static std::pair<size_t, uint32_t> place_of(const int32_t * end, size_t order);

    std::vector<Context> contexts_; // [n_orders, n_contexts]; empty until first used
};

} // namespace mp
