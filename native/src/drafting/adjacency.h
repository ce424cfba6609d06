// Adjacency source: for every token the tokens that the model ranked highest right after it. Two lists each:
// what the model said where the token was last verified (refreshed for free, as in Token Recycling, Luo et al.
// 2024, arXiv 2408.08696), and what it says after the token alone, from a table made once per model. Who makes
// the table and ranks the rows is not its affair.
#pragma once

#include "drafting/sources.h"
#include "drafting/tree.h"
#include "maskprobe.h"

namespace mp {

class AdjacencySource {
public:
    static constexpr size_t width = MP_ADJACENCY_WIDTH; // candidates kept per token

    explicit AdjacencySource(size_t n_vocab) : n_vocab_(n_vocab) {}

    // The model's ranked candidates after token in a verified row.
    void refresh(int32_t token, const Candidates & ranked);
    // Forgets all refreshed lists.
    void forget() { recent_ = Table(); }
    // tokens and logps: [n_vocab, width], best first.
    void set_table(const int32_t * tokens, const float * logps);

    void propose(const NodeContext & node, CandidateSet & out) const;

private:
    struct Table {
        std::vector<int32_t> tokens; // [n_vocab, width], -1 past the end of a list; empty until first used
        std::vector<float> logps;    // [n_vocab, width]
    };
    void propose_from(const Table & table, const ListFeatures & list, const NodeContext & node,
                      CandidateSet & out) const;

    size_t n_vocab_;
    Table recent_;
    Table alone_;
};

} // namespace mp
