#include "drafting/planner.h"

#include <algorithm>
#include <cmath>
#include <queue>

namespace mp {

namespace {

// Tokens that a mask's candidates add to the next pass when its node ends the accepted path.
constexpr float mask_value = 0.15f;
constexpr float noise = 1e-3f; // gains below this are

// A row that may be added: a drafted node, or the masks of one.
struct Row {
    float gain;
    int32_t node;
    bool masks;
};

} // namespace

Plan make_plan(int32_t root_token, const Evidence & evidence, const Mixer & mixer, const Budget & budget,
               const PlanLimits & limits) {
    Plan plan(root_token);
    DraftTree & tree = plan.tree;
    const size_t max_nodes = limits.rows > limits.n_again ? limits.rows - limits.n_again : 1;
    const float price = budget.price();
    const float trust = budget.trust();

    struct Entry {
        float p; // of the path
        int32_t parent;
        size_t candidate;
        bool operator<(const Entry & other) const { return p != other.p ? p < other.p : parent > other.parent; }
    };
    std::priority_queue<Entry> frontier;
    std::vector<float> path_p{1.0f};
    std::vector<int32_t> context;
    const auto expand = [&](int32_t node) {
        // The node's context: the end of the committed tokens, then its path. The root is in the former.
        context.clear();
        for (int32_t i = node; i > 0; i = tree.parent[i]) {
            context.push_back(tree.token[i]);
        }
        const std::vector<int32_t> & past = evidence.ngrams.tokens();
        const size_t n_past =
            std::min(past.size(), NgramSource::max_match - std::min(context.size(), NgramSource::max_match));
        context.insert(context.end(), past.rbegin(), past.rbegin() + static_cast<ptrdiff_t>(n_past));
        std::reverse(context.begin(), context.end());

        const NodeContext view{context.data(), context.size(), tree.depth[node]};
        CandidateSet set;
        if ((evidence.sources & MP_SOURCE_NGRAMS) != 0) {
            evidence.ngrams.propose(view, set);
        }
        if (static_cast<size_t>(tree.depth[node]) < evidence.guesses.size()) {
            const Candidates & level = evidence.guesses[tree.depth[node]];
            set.add_list(level.token.data(), level.logp.data(), level.token.size(), feature_probe);
        }
        if ((evidence.sources & MP_SOURCE_ADJACENCY) != 0) {
            evidence.adjacency.propose(view, set);
        }
        if ((evidence.sources & MP_SOURCE_HISTORY) != 0) {
            evidence.history.propose(view, set);
        }
        mixer.mix(set);
        for (size_t i = 0; i < set.items.size(); ++i) {
            frontier.push({path_p[node] * set.items[i].p, node, i});
        }
        plan.candidates.resize(tree.size());
        plan.candidates[node] = std::move(set);
    };

    // A node that brings less than the cheapest further row costs cannot pay, nor can those after it.
    const size_t fixed = limits.n_again + 1;
    const float fixed_cost = budget.cost(fixed);
    float least_gain = noise;
    if (limits.rows > fixed) {
        float cheapest = budget.cost(fixed + 1) - fixed_cost;
        for (size_t n = fixed + 2; n <= limits.rows; ++n) {
            cheapest = std::min(cheapest, (budget.cost(n) - fixed_cost) / static_cast<float>(n - fixed));
        }
        least_gain = std::max(least_gain, price * cheapest / trust);
    }

    expand(0);
    while (tree.size() < max_nodes && !frontier.empty()) {
        const Entry best = frontier.top();
        frontier.pop();
        if (best.p < least_gain) {
            break;
        }
        const Candidate & candidate = plan.candidates[best.parent].items[best.candidate];
        const int32_t node = tree.add(best.parent, candidate.token, std::log(candidate.p));
        path_p.push_back(best.p);
        if (static_cast<size_t>(tree.depth[node]) < limits.depth) {
            expand(node);
        }
    }
    plan.candidates.resize(tree.size());

    // Rows by what they bring. A node's masks are read when the path ends at the node.
    std::vector<Row> rows;
    std::vector<float> p_end = path_p;
    for (size_t i = tree.size(); i-- > 1;) {
        p_end[tree.parent[i]] -= path_p[i];
    }
    for (size_t i = 0; i < tree.size(); ++i) {
        if (i > 0) {
            rows.push_back({path_p[i], static_cast<int32_t>(i), false});
        }
        if (limits.masks > 0) {
            rows.push_back({std::max(0.0f, p_end[i]) * mask_value, static_cast<int32_t>(i), true});
        }
    }
    std::stable_sort(rows.begin(), rows.end(), [](const Row & a, const Row & b) { return a.gain > b.gain; });

    // The best number of them, all numbers looked at: costs go in steps.
    float gain = 0.0f;
    float best_worth = 0.0f;
    size_t n_best = 0;
    std::vector<bool> has_branch(tree.size(), false); // drafted children or masks below the node
    size_t leaves = 1;
    size_t n_rows = fixed;
    for (size_t i = 0; i < rows.size(); ++i) {
        n_rows += rows[i].masks ? static_cast<size_t>(limits.masks) : 1;
        // Masks are a branch below their node, a drafted node one below its parent: a second one adds a leaf.
        const int32_t above = rows[i].masks ? rows[i].node : tree.parent[rows[i].node];
        leaves += has_branch[above] ? 1 : 0;
        has_branch[above] = true;
        if (n_rows > limits.rows || leaves > limits.leaves) {
            break;
        }
        gain += rows[i].gain;
        const float worth = trust * gain - price * (budget.cost(n_rows) - fixed_cost);
        if (worth > best_worth) {
            best_worth = worth;
            n_best = i + 1;
        }
    }

    // Nodes were added in the order of their gains, so those chosen are the first ones.
    size_t n_nodes = 1;
    for (size_t i = 0; i < n_best; ++i) {
        n_nodes += rows[i].masks ? 0 : 1;
    }
    tree.token.resize(n_nodes);
    tree.parent.resize(n_nodes);
    tree.depth.resize(n_nodes);
    tree.logp.resize(n_nodes);
    plan.candidates.resize(n_nodes);
    plan.masks_of_node.assign(n_nodes, 0);
    for (size_t i = 0; i < n_best; ++i) {
        if (rows[i].masks) {
            plan.masks_of_node[rows[i].node] = limits.masks;
        } else {
            plan.expected += rows[i].gain;
        }
    }
    return plan;
}

} // namespace mp
