// Grows the tree that is expected to earn most: likeliest nodes first, of whatever shape, and masks where
// they are likely to be read. Knows probabilities, rows and prices; asks the sources and the mixer for the
// first and the budget for the others.
#pragma once

#include "drafting/adjacency.h"
#include "drafting/budget.h"
#include "drafting/grammar.h"
#include "drafting/history.h"
#include "drafting/mixer.h"
#include "drafting/ngram.h"
#include "drafting/tree.h"
#include "maskprobe.h"

namespace mp {

// All evidence there is, by reference.
struct Evidence {
    const NgramSource & ngrams; // its tokens end with the root
    const AdjacencySource & adjacency;
    const HistorySource & history;
    const GrammarSource & grammar;           // which forbids and proposes
    const std::vector<Candidates> & guesses; // the masks': guesses[d] ranks the tokens of depth d + 1; may be empty
    int32_t sources;                         // MP_SOURCE_*: which of the first three propose
};

struct PlanLimits {
    size_t rows;                // most rows of the whole pass
    size_t n_again;             // how many of them are taken before the root
    size_t depth;               // most depth of a drafted node
    size_t leaves;              // most leaves, as each takes a sequence id
    int32_t masks = 0;          // how many masks a node carries that carries any
    bool chain = false;         // no node has more than one child, and only the last carries masks
    bool decodes_again = false; // a chain that is not accepted as a whole is decoded again as far as it was
};

struct Plan {
    DraftTree tree;
    std::vector<int32_t> masks_of_node;   // [nodes]
    std::vector<CandidateSet> candidates; // [nodes], empty where none were asked for
    float expected = 1.0f;                // tokens that the pass is expected to commit; 0 where nobody asked
    float price = 0.0f;                   // expected tokens that it had to bring per unit of cost; 0 where nobody asked

    // The root alone.
    explicit Plan(int32_t root_token) : tree(root_token), masks_of_node{0}, candidates(1) {}
};

// The plan that is expected to earn most within the limits; limits.depth is at least 1.
Plan make_plan(int32_t root_token, const Evidence & evidence, const Mixer & mixer, const Budget & budget,
               const PlanLimits & limits);

} // namespace mp
