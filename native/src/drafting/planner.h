// Grows the tree that is expected to earn most: likeliest nodes first, of whatever shape, and masks where
// they are likely to be read. Knows probabilities, rows and prices; asks the sources and the mixer for the
// first and the budget for the others.
//
// Texts that share a pass each propose rows, and those are taken that earn most, whosever they are.
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
    size_t rows;                // most rows of this text in the pass
    size_t n_again;             // how many of them are taken before the root
    size_t depth;               // most depth of a drafted node
    size_t leaves;              // most leaves, as each takes a sequence id
    int32_t masks = 0;          // how many masks a node carries that carries any
    bool chain = false;         // no node has more than one child, and only the last carries masks
    bool decodes_again = false; // a chain that is not accepted as a whole is decoded again as far as it was
    size_t others = 0;          // rows of others that the pass has in any case
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

// A row that may be added: a drafted node, or the masks of one.
struct PlannedRow {
    float gain; // tokens
    int32_t node;
    bool masks;
};

// What a text would have of a pass.
struct Proposal {
    Plan plan;                    // with a tree of all nodes that may be drafted
    std::vector<PlannedRow> rows; // that may be added to its root, best first
    PlanLimits limits;            // that it keeps
    float trust = 1.0f;           // how far its gains may be trusted

    Proposal(int32_t root_token, const PlanLimits & kept) : plan(root_token), limits(kept) {}
};

// What may be worth its rows; limits.depth is at least 1.
Proposal propose(int32_t root_token, const Evidence & evidence, const Mixer & mixer, const Budget & budget,
                 const PlanLimits & limits);
// How many rows of each proposal, the best ones, earn most in one pass that has n_fixed rows in any case and takes
// most_rows.
std::vector<size_t> choose_numbers(const std::vector<const Proposal *> & proposals, const Budget & budget,
                                   size_t n_fixed, size_t most_rows);
// The same where each of n_texts must have as many rows as the others, chains all, which have no rows before.
std::vector<size_t> choose_equal_numbers(const std::vector<const Proposal *> & proposals, const Budget & budget,
                                         size_t n_texts, size_t most_rows);
// The plan of the first n rows of a proposal.
Plan settle(Proposal proposal, size_t n);

// The plan that is expected to earn most within the limits for a text that has a pass alone; limits.depth is at
// least 1.
Plan make_plan(int32_t root_token, const Evidence & evidence, const Mixer & mixer, const Budget & budget,
               const PlanLimits & limits);

} // namespace mp
