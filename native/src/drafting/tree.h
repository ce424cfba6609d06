// A tree of drafted tokens under a root that is already committed, and how it grows from the ranked
// candidates of each depth. Knows nothing of where the candidates come from or how the tree is decoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mp {

// Ranked guesses for one future slot, best first.
struct Candidates {
    std::vector<int32_t> token;
    std::vector<float> logp; // log-probability
};

// Parallel arrays indexed by node. Node 0 is the root; parents come before their children.
struct DraftTree {
    std::vector<int32_t> token;
    std::vector<int32_t> parent; // -1 for the root
    std::vector<int32_t> depth;  // 0 for the root
    std::vector<float> logp;     // log-probability of the path from the root

    explicit DraftTree(int32_t root_token);

    size_t size() const { return token.size(); }
    size_t n_drafted() const { return size() - 1; }
    int32_t add(int32_t parent, int32_t token, float logp_given_parent);
    // Keeps the first n nodes, at least the root.
    void truncate(size_t n);
    // The child of node that carries token, or -1.
    int32_t child(int32_t node, int32_t token) const;
    // The drafted tokens that lead to a node, its own last.
    std::vector<int32_t> drafted_to(int32_t node) const;
    // The likeliest path: from the root always the likeliest child. Starts with node 0.
    std::vector<int32_t> spine() const;
    // Empty if the arrays form a tree with distinct siblings, else what is wrong.
    std::string check_integrity() const;
};

// How many nodes a path and a spine have in common at their start.
size_t n_on_spine(const std::vector<int32_t> & path, const std::vector<int32_t> & spine);

// Whether a token may follow a node of a tree that grows; none: every token may.
using MayFollow = std::function<bool(const DraftTree & tree, int32_t node, int32_t token)>;

// levels[d] ranks the tokens of depth d + 1. With prune, a candidate equal to its parent's token is skipped; one that
// may not follow is always.

// [ESP, §3.3] widths[d] children at depth d + 1, all under the likeliest node of depth d.
DraftTree grow_static(int32_t root_token, const std::vector<Candidates> & levels, const std::vector<int32_t> & widths,
                      bool prune, size_t max_drafted, const MayFollow & may_follow = {});

// [ESP, Algorithm 1] The most probable set of n_drafted nodes that is closed under ancestors, where a
// node's probability is the product of its candidates' probabilities on the path from the root.
DraftTree grow_dynamic(int32_t root_token, const std::vector<Candidates> & levels, bool prune, size_t n_drafted,
                       const MayFollow & may_follow = {});

} // namespace mp
