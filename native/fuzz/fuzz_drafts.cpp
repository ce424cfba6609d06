// Sources, mixer, budget, planner, trees and blocks over token streams, lists and costs of any kind: probabilities
// are probabilities, plans are trees within their limits, and blocks hold each node once.
#include "block.h"
#include "drafting/logits.h"
#include "drafting/planner.h"
#include "fuzz.h"
#include "keeper.h"

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

constexpr int32_t n_vocab = 24;

struct State {
    NgramSource ngrams;
    AdjacencySource adjacency{n_vocab};
    HistorySource history;
    GrammarSource grammar{n_vocab};
    Mixer mixer;
    std::vector<Candidates> guesses;
    Budget budget{{1.0f}, false};
};

// Logits with a few odd ones among them, ranked as the session ranks them.
Candidates ranked(Input & in) {
    std::vector<float> logits(1 + in.below(n_vocab));
    for (float & x : logits) {
        x = in.some_float();
    }
    const size_t n_top = in.below(12);
    const Candidates result = in.coin() ? top_candidates(logits.data(), logits.size(), n_top)
                                        : top_listed(logits.data(), logits.size(), n_top);
    CHECK(result.token.size() <= std::min(n_top, logits.size()));
    CHECK_EQ(result.token.size(), result.logp.size());
    for (size_t i = 0; i < result.token.size(); ++i) {
        CHECK(result.token[i] >= 0 && result.token[i] < static_cast<int32_t>(logits.size()));
        CHECK(result.logp[i] <= 0.0f && (i == 0 || result.logp[i] <= result.logp[i - 1]));
    }
    const int32_t best = most_likely(logits.data(), logits.size());
    CHECK(best >= 0 && best < static_cast<int32_t>(logits.size()));
    return result;
}

// Costs as Speculation::check lets them through.
Budget any_budget(Input & in) {
    std::vector<float> cost(1 + in.below(40));
    for (float & c : cost) {
        const float x = std::fabs(in.some_float());
        c = x >= 1e-9f && x <= 1e9f ? x : 1.0f;
    }
    return Budget(cost, in.coin());
}

void check_mixed(const CandidateSet & set) {
    double total = set.p_none;
    CHECK(set.p_none >= 0.0f && set.p_none <= 1.0f);
    for (size_t i = 0; i < set.items.size(); ++i) {
        CHECK(set.items[i].p >= 0.0f && set.items[i].p <= 1.0f);
        total += set.items[i].p;
        for (size_t j = 0; j < i; ++j) {
            CHECK(set.items[i].token != set.items[j].token);
        }
    }
    CHECK(std::fabs(total - 1.0) < 1e-2);
}

void check_block(const DraftTree & tree, const Ids & masks_of_node, Input & in) {
    const int32_t leaves = count_leaves(tree, masks_of_node);
    Ids pending = in.tokens(in.below(4), n_vocab);
    pending.push_back(tree.token[0]);
    const int32_t n_past = in.below(100);
    Block block = layout_block(pending, tree, masks_of_node, n_past, leaves + in.below(3));
    CHECK_EQ(block.n_sequences, leaves);
    CHECK_EQ(static_cast<size_t>(block.n_again) + 1, pending.size());
    size_t rows = block.n_again + tree.size();
    for (size_t i = 0; i < tree.size(); ++i) {
        rows += static_cast<size_t>(masks_of_node[i]);
        const int32_t row = block.row_of_node[i];
        CHECK_EQ(block.token[row], tree.token[i]);
        CHECK_EQ(block.pos[row], n_past + block.n_again + tree.depth[i]);
        CHECK_EQ(block.row_of_mask[i] < 0, masks_of_node[i] == 0);
    }
    CHECK_EQ(block.n_rows(), rows);
    const BatchView view(block, nullptr);
    CHECK_EQ(static_cast<size_t>(view.get().n_tokens), rows);
    for (size_t row = 0; row < rows; ++row) {
        CHECK(!block.sequences[row].empty());
        CHECK_EQ(static_cast<size_t>(view.get().n_seq_id[row]), block.sequences[row].size());
    }
}

void plan(State & s, Input & in) {
    if (s.ngrams.size() == 0) {
        s.ngrams.push(in.below(n_vocab));
    }
    AnyKeeper keeper(in, n_vocab);
    s.grammar.begin(keeper.guide(), &keeper);
    const PlanLimits limits{static_cast<size_t>(1 + in.below(60)), static_cast<size_t>(in.below(5)),
                            static_cast<size_t>(1 + in.below(12)), static_cast<size_t>(1 + in.below(20)),
                            in.below(MP_MAX_MASKS + 1)};
    const Plan p =
        make_plan(s.ngrams.tokens().back(), {s.ngrams, s.adjacency, s.history, s.grammar, s.guesses, in.below(8)},
                  s.mixer, s.budget, limits);
    CHECK_EQ(p.tree.check_integrity(), std::string());
    CHECK_EQ(p.masks_of_node.size(), p.tree.size());
    CHECK_EQ(p.candidates.size(), p.tree.size());
    size_t rows = limits.n_again + p.tree.size();
    for (size_t i = 0; i < p.tree.size(); ++i) {
        rows += static_cast<size_t>(p.masks_of_node[i]);
        CHECK(p.masks_of_node[i] == 0 || p.masks_of_node[i] == limits.masks);
        CHECK(p.tree.depth[i] <= static_cast<int32_t>(limits.depth));
        CHECK(p.tree.token[i] >= 0 && p.tree.token[i] < n_vocab);
        CHECK(i == 0 || keeper.allows(p.tree.drafted_to(p.tree.parent[i]).size(), p.tree.token[i]));
        if (!p.candidates[i].items.empty()) {
            check_mixed(p.candidates[i]);
        }
    }
    CHECK(rows <= std::max(limits.rows, limits.n_again + 1));
    CHECK(count_leaves(p.tree, p.masks_of_node) <= static_cast<int32_t>(limits.leaves));
    CHECK(p.expected >= 1.0f && p.expected <= static_cast<float>(p.tree.size()) + 1e-3f);
    check_block(p.tree, p.masks_of_node, in);

    // A walk down the tree, as verification makes it.
    size_t accepted = 0;
    for (int32_t node = 0; node >= 0;) {
        const int32_t next = in.below(n_vocab);
        if (!p.candidates[node].items.empty()) {
            s.mixer.learn(p.candidates[node], next);
            s.ngrams.learn(p.candidates[node], next);
        }
        s.grammar.learn(p.candidates[node], p.tree.token[node], next);
        s.ngrams.push(next);
        node = p.tree.child(node, next);
        ++accepted;
    }
    const float ms = std::fabs(in.some_float());
    s.budget.observe(rows, accepted, p.expected, ms < 1e6f ? ms : 1.0f);
    CHECK(s.budget.trust() > 0.0f && s.budget.trust() <= 1.0f);
    CHECK(s.budget.price() > 0.0f && std::isfinite(s.budget.price()));
    for (size_t n = 1; n <= limits.rows; ++n) {
        CHECK(s.budget.cost(n) > 0.0f && std::isfinite(s.budget.cost(n)));
    }
}

void grow(Input & in) {
    std::vector<Candidates> levels;
    for (int32_t i = in.below(MP_MAX_MASKS + 1); i > 0; --i) {
        levels.push_back(ranked(in));
    }
    Ids widths = in.tokens(in.below(MP_MAX_MASKS + 1), 12);
    const size_t most = in.below(30);
    const int32_t root = in.below(n_vocab);
    const DraftTree tree =
        in.coin() ? grow_dynamic(root, levels, in.coin(), most) : grow_static(root, levels, widths, in.coin(), most);
    CHECK_EQ(tree.check_integrity(), std::string());
    CHECK(tree.n_drafted() <= most);
    Ids masks(tree.size());
    for (int32_t & n : masks) {
        n = in.below(MP_MAX_MASKS + 1);
    }
    check_block(tree, masks, in);
}

void set_table(State & s, Input & in) {
    Ids tokens(n_vocab * MP_ADJACENCY_WIDTH, -1);
    std::vector<float> logps(tokens.size(), -1.0f);
    for (int32_t i = 0; i < 24; ++i) {
        const size_t at = in.below(static_cast<int32_t>(tokens.size()));
        tokens[at] = in.below(n_vocab + 1) - 1;
        logps[at] = in.some_float();
    }
    s.adjacency.set_table(tokens.data(), logps.data());
}

} // namespace

void fuzz_begin() {}

void fuzz_one(Input & in) {
    State s;
    while (!in.done() && n_failures == 0) {
        switch (in.below(11)) {
        case 0: s.ngrams.push(in.below(n_vocab)); break;
        case 1: {
            const Ids part = in.tokens(1 + in.below(5), n_vocab);
            for (int32_t i = in.below(60); i > 0; --i) {
                s.ngrams.push(part[i % part.size()]);
            }
            break;
        }
        case 2: s.adjacency.refresh(in.below(n_vocab), ranked(in)); break;
        case 3: set_table(s, in); break;
        case 4:
            s.guesses.clear();
            for (int32_t i = in.below(MP_MAX_MASKS + 1); i > 0; --i) {
                s.guesses.push_back(ranked(in));
            }
            break;
        case 5: s.budget = any_budget(in); break;
        case 6: grow(in); break;
        case 7:
            if (in.rarely(8)) {
                s.ngrams.clear();
                s.adjacency.forget();
                s.history.forget();
                s.grammar.forget();
                s.budget.begin_text();
            }
            break;
        case 8: {
            const Ids text = in.tokens(in.below(20), n_vocab);
            for (int32_t i = in.rarely(4) ? 5000 : 1; i > 0; --i) { // often enough for counts to be halved
                s.history.learn(text, in.below(3));
            }
            break;
        }
        default: plan(s, in);
        }
    }
}
