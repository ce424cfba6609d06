// Adjacency source: for every token the tokens that the model ranked highest right after it. Two lists each:
// what the model said where the token was last verified (refreshed for free, as in Token Recycling, Luo et al.
// 2024, arXiv 2408.08696), and what it says after the token alone, from a table made once per model.
#pragma once

#include "sources.h"
#include "tree.h"

namespace mp {

class AdjacencySource {
public:
    static constexpr size_t width = 8; // candidates kept per token

    explicit AdjacencySource(size_t n_vocab) : n_vocab_(n_vocab) {}

    // The model's ranked candidates after token in a verified row.
    void refresh(int32_t token, const Candidates & ranked);
    // tokens and logps: [n_vocab, width], best first.
    void set_table(const int32_t * tokens, const float * logps);

    void propose(const NodeContext & node, CandidateSet & out) const;

private:
    struct Entry {
        int32_t token = -1;
        float logp = 0.0f;
    };
    size_t n_vocab_;
    std::vector<Entry> recent_; // [n_vocab, width], empty until first used
    std::vector<Entry> table_;  // [n_vocab, width], empty without a table
};

} // namespace mp
