// History source: what followed the last tokens in texts that the model wrote earlier. When a text is over, and which
// of its tokens the model wrote, is the drafter's to say.
#pragma once

#include "drafting/followers.h"
#include "drafting/sources.h"

namespace mp {

class HistorySource {
public:
    // The tokens from the given one on were written by the model, each after those before it.
    void learn(const std::vector<int32_t> & tokens, size_t from);
    void forget() { table_.forget(); }

    void propose(const NodeContext & node, CandidateSet & out) const;

private:
    static constexpr size_t n_orders = 3; // contexts of the last 1, 2 and 3 tokens
    // The number of keys of the last tokens before end, of which there are n_tokens.
    static size_t keys_of(const int32_t * end, size_t n_tokens, FollowerTable::Keys & keys);

    FollowerTable table_{n_orders, 1ull << 17}; // 12 MiB in all
};

} // namespace mp
