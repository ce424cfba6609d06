#include "drafting/tree.h"

#include <algorithm>
#include <queue>

namespace mp {

DraftTree::DraftTree(int32_t root_token) : token{root_token}, parent{-1}, depth{0}, logp{0.0f} {}

int32_t DraftTree::add(int32_t parent_node, int32_t child_token, float logp_given_parent) {
    token.push_back(child_token);
    parent.push_back(parent_node);
    depth.push_back(depth[parent_node] + 1);
    logp.push_back(logp[parent_node] + logp_given_parent);
    return static_cast<int32_t>(size()) - 1;
}

void DraftTree::truncate(size_t n) {
    token.resize(n);
    parent.resize(n);
    depth.resize(n);
    logp.resize(n);
}

int32_t DraftTree::child(int32_t node, int32_t child_token) const {
    for (size_t i = node + 1; i < size(); ++i) {
        if (parent[i] == node && token[i] == child_token) {
            return static_cast<int32_t>(i);
        }
    }
    return -1;
}

std::vector<int32_t> DraftTree::drafted_to(int32_t node) const {
    std::vector<int32_t> tokens(static_cast<size_t>(depth[node]));
    for (auto at = tokens.rbegin(); at != tokens.rend(); ++at, node = parent[node]) {
        *at = token[node];
    }
    return tokens;
}

std::vector<int32_t> DraftTree::spine() const {
    std::vector<int32_t> best(size(), -1); // likeliest child of each node
    for (size_t i = 1; i < size(); ++i) {
        int32_t & current = best[parent[i]];
        if (current < 0 || logp[i] > logp[current]) {
            current = static_cast<int32_t>(i);
        }
    }
    std::vector<int32_t> path;
    for (int32_t node = 0; node >= 0; node = best[node]) {
        path.push_back(node);
    }
    return path;
}

std::string DraftTree::check_integrity() const {
    const size_t n = size();
    if (n == 0 || parent.size() != n || depth.size() != n || logp.size() != n) {
        return "arrays differ in length or are empty";
    }
    if (parent[0] != -1 || depth[0] != 0) {
        return "node 0 is not a root";
    }
    for (size_t i = 1; i < n; ++i) {
        const std::string node = "node " + std::to_string(i);
        if (parent[i] < 0 || parent[i] >= static_cast<int32_t>(i)) {
            return node + " does not come after its parent";
        }
        if (depth[i] != depth[parent[i]] + 1) {
            return node + " has the wrong depth";
        }
        if (!(logp[i] <= logp[parent[i]])) {
            return node + " is likelier than its parent";
        }
        if (child(parent[i], token[i]) != static_cast<int32_t>(i)) {
            return node + " repeats a sibling's token";
        }
    }
    return "";
}

namespace {

// The first candidate at or after rank that can stand below the parent, or the number of candidates.
size_t next_rank(const DraftTree & tree, int32_t parent, const Candidates & level, size_t rank, bool prune,
                 const MayFollow & may_follow) {
    for (; rank < level.token.size(); ++rank) {
        const int32_t token = level.token[rank];
        if (!(prune && token == tree.token[parent]) && (!may_follow || may_follow(tree, parent, token))) {
            break;
        }
    }
    return rank;
}

} // namespace

DraftTree grow_static(int32_t root_token, const std::vector<Candidates> & levels, const std::vector<int32_t> & widths,
                      bool prune, size_t max_drafted, const MayFollow & may_follow) {
    DraftTree tree(root_token);
    int32_t parent = 0;
    for (size_t d = 0; d < widths.size() && d < levels.size(); ++d) {
        const Candidates & level = levels[d];
        int32_t top = -1;
        size_t rank = 0;
        for (int32_t i = 0; i < widths[d] && tree.n_drafted() < max_drafted; ++i, ++rank) {
            rank = next_rank(tree, parent, level, rank, prune, may_follow);
            if (rank == level.token.size()) {
                break;
            }
            const int32_t node = tree.add(parent, level.token[rank], level.logp[rank]);
            top = top < 0 ? node : top;
        }
        if (top < 0) {
            break;
        }
        parent = top;
    }
    return tree;
}

size_t n_on_spine(const std::vector<int32_t> & path, const std::vector<int32_t> & spine) {
    const auto end = std::mismatch(path.begin(), path.end(), spine.begin(), spine.end()).first;
    return static_cast<size_t>(end - path.begin());
}

DraftTree grow_dynamic(int32_t root_token, const std::vector<Candidates> & levels, bool prune, size_t n_drafted,
                       const MayFollow & may_follow) {
    // The frontier holds, for every node, its best child not yet taken. Log-probabilities fall along a path
    // and along the ranks, so the best of the frontier is always the next most probable node.
    struct Entry {
        float logp;
        int32_t parent;
        size_t rank;
        bool operator<(const Entry & other) const {
            // Ties go to the node found first.
            return logp != other.logp ? logp < other.logp : parent > other.parent;
        }
    };
    DraftTree tree(root_token);
    std::priority_queue<Entry> frontier;
    const auto offer = [&](int32_t parent, size_t rank) {
        const size_t depth = tree.depth[parent];
        if (depth >= levels.size()) {
            return;
        }
        rank = next_rank(tree, parent, levels[depth], rank, prune, may_follow);
        if (rank < levels[depth].token.size()) {
            frontier.push({tree.logp[parent] + levels[depth].logp[rank], parent, rank});
        }
    };
    offer(0, 0);
    while (tree.n_drafted() < n_drafted && !frontier.empty()) {
        const Entry best = frontier.top();
        frontier.pop();
        const Candidates & level = levels[tree.depth[best.parent]];
        const int32_t node = tree.add(best.parent, level.token[best.rank], level.logp[best.rank]);
        offer(node, 0);
        offer(best.parent, best.rank + 1);
    }
    return tree;
}

} // namespace mp
