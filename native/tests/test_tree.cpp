// Draft trees: growth against trees worked out by hand, the dynamic tree against all the trees there are, the
// spine, and the integrity check against each kind of damage.
#include "check.h"
#include "drafting/reliability.h"
#include "drafting/tree.h"

#include <algorithm>
#include <cmath>
#include <functional>

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

// Candidates with the given probabilities.
Candidates level(const Ids & tokens, const std::vector<double> & probabilities) {
    Candidates result;
    result.token = tokens;
    for (const double p : probabilities) {
        result.logp.push_back(static_cast<float>(std::log(p)));
    }
    return result;
}

void check_probabilities(const DraftTree & tree, const std::vector<double> & expected) {
    if (CHECK_EQ(tree.size(), expected.size())) {
        for (size_t i = 0; i < expected.size(); ++i) {
            CHECK(std::fabs(std::exp(tree.logp[i]) - expected[i]) < 1e-5);
        }
    }
}

void static_one_depth() {
    const std::vector<Candidates> levels{level({5, 6, 7, 8, 9}, {.4, .2, .1, .05, .01})};
    const DraftTree tree = grow_static(1, levels, {4}, true, 100);
    CHECK_EQ(tree.token, (Ids{1, 5, 6, 7, 8}));
    CHECK_EQ(tree.parent, (Ids{-1, 0, 0, 0, 0}));
    CHECK_EQ(tree.depth, (Ids{0, 1, 1, 1, 1}));
    check_probabilities(tree, {1, .4, .2, .1, .05});
    CHECK_EQ(tree.n_drafted(), size_t{4});
    CHECK_EQ(tree.check_integrity(), "");
    CHECK_EQ(tree.spine(), (Ids{0, 1}));
}

void static_two_depths() {
    const std::vector<Candidates> levels{level({5, 6, 7, 8}, {.4, .2, .1, .05}), level({5, 3, 2}, {.5, .3, .1})};
    const DraftTree tree = grow_static(1, levels, {3, 2}, false, 100);
    CHECK_EQ(tree.token, (Ids{1, 5, 6, 7, 5, 3}));
    CHECK_EQ(tree.parent, (Ids{-1, 0, 0, 0, 1, 1}));
    CHECK_EQ(tree.depth, (Ids{0, 1, 1, 1, 2, 2}));
    check_probabilities(tree, {1, .4, .2, .1, .2, .12});
    CHECK_EQ(tree.spine(), (Ids{0, 1, 4}));
    CHECK_EQ(tree.check_integrity(), "");

    // Pruning: token 5 under token 5 gives way to the next best, once.
    const DraftTree pruned = grow_static(1, levels, {3, 2}, true, 100);
    CHECK_EQ(pruned.token, (Ids{1, 5, 6, 7, 3, 2}));
    CHECK_EQ(pruned.parent, (Ids{-1, 0, 0, 0, 1, 1}));
    check_probabilities(pruned, {1, .4, .2, .1, .12, .04});
}

void static_pruning_at_the_root() {
    const std::vector<Candidates> levels{level({5, 6, 7}, {.4, .2, .1})};
    CHECK_EQ(grow_static(5, levels, {2}, true, 100).token, (Ids{5, 6, 7}));
    CHECK_EQ(grow_static(6, levels, {2}, true, 100).token, (Ids{6, 5, 7}));
    CHECK_EQ(grow_static(6, levels, {2}, false, 100).token, (Ids{6, 5, 6}));
    // Without a candidate to spare the tree is narrower; without any it is the root.
    CHECK_EQ(grow_static(6, levels, {3}, true, 100).token, (Ids{6, 5, 7}));
    CHECK_EQ(grow_static(6, {level({6}, {.9}), level({7}, {.9})}, {1, 1}, true, 100).token, (Ids{6}));
}

void static_limits() {
    const std::vector<Candidates> levels{level({5, 6, 7, 8}, {.4, .2, .1, .05}), level({9, 3, 2}, {.5, .3, .1})};
    CHECK_EQ(grow_static(1, levels, {3, 2}, true, 0).token, (Ids{1}));
    CHECK_EQ(grow_static(1, levels, {3, 2}, true, 2).token, (Ids{1, 5, 6}));
    CHECK_EQ(grow_static(1, levels, {3, 2}, true, 4).token, (Ids{1, 5, 6, 7, 9}));
    CHECK_EQ(grow_static(1, levels, {3}, true, 9).token, (Ids{1, 5, 6, 7}));
    CHECK_EQ(grow_static(1, {levels[0]}, {2, 2}, true, 9).token, (Ids{1, 5, 6}));
    CHECK_EQ(grow_static(1, levels, {9, 9}, true, 99).n_drafted(), size_t{7});
    CHECK_EQ(grow_static(1, {}, {3, 2}, true, 9).token, (Ids{1}));
    CHECK_EQ(grow_static(1, levels, {}, true, 9).token, (Ids{1}));
    CHECK_EQ(grow_static(1, {Candidates(), levels[1]}, {3, 2}, true, 9).token, (Ids{1}));
}

// The most probable paths in order: 5 (.6), 5-7 (.306), 6 (.3), 5-8 (.18), 6-7 (.153).
void dynamic_by_hand() {
    const std::vector<Candidates> levels{level({5, 6}, {.6, .3}), level({7, 8, 9}, {.51, .3, .1})};
    const DraftTree tree = grow_dynamic(1, levels, true, 5);
    CHECK_EQ(tree.token, (Ids{1, 5, 7, 6, 8, 7}));
    CHECK_EQ(tree.parent, (Ids{-1, 0, 1, 0, 1, 3}));
    CHECK_EQ(tree.depth, (Ids{0, 1, 2, 1, 2, 2}));
    check_probabilities(tree, {1, .6, .306, .3, .18, .153});
    CHECK_EQ(tree.spine(), (Ids{0, 1, 2}));
    CHECK_EQ(grow_dynamic(1, levels, true, 0).token, (Ids{1}));
    CHECK_EQ(grow_dynamic(1, levels, true, 99).n_drafted(), size_t{8});
    CHECK_EQ(grow_dynamic(1, {}, true, 9).token, (Ids{1}));
}

void dynamic_pruning() {
    // Each of 5 and 6 keeps the other one as its only child; the root 6 takes its own token away.
    const std::vector<Candidates> levels{level({5, 6}, {.5, .4}), level({5, 6}, {.6, .4})};
    const DraftTree pruned = grow_dynamic(1, levels, true, 99);
    for (size_t i = 1; i < pruned.size(); ++i) {
        CHECK(pruned.token[i] != pruned.token[pruned.parent[i]]);
    }
    CHECK_EQ(pruned.n_drafted(), size_t{4});
    CHECK_EQ(grow_dynamic(1, levels, false, 99).n_drafted(), size_t{6});
    CHECK_EQ(grow_dynamic(6, levels, true, 99).token, (Ids{6, 5, 6}));
}

void dynamic_ties() {
    const std::vector<Candidates> levels{level({5, 6, 7}, {.25, .25, .25}), level({8, 9}, {1.0, 1.0})};
    // Equal probabilities: the node whose parent was found first, so the tree is the same everywhere.
    const DraftTree tree = grow_dynamic(1, levels, false, 4);
    CHECK_EQ(tree.check_integrity(), "");
    CHECK_EQ(tree.token, (Ids{1, 5, 6, 7, 8}));
    CHECK_EQ(tree.spine(), (Ids{0, 1, 4}));
}

void what_may_not_follow_is_left_out() {
    const std::vector<Candidates> levels{level({5, 6, 7}, {.5, .3, .2}), level({8, 9}, {.6, .4})};
    const MayFollow may_follow = [](const DraftTree & tree, int32_t node, int32_t token) {
        return token != 5 && !(tree.drafted_to(node) == Ids{6} && token == 8);
    };
    CHECK_EQ(grow_static(1, levels, {2, 2}, false, 9, may_follow).token, (Ids{1, 6, 7, 9}));
    const DraftTree dynamic = grow_dynamic(1, levels, false, 9, may_follow);
    CHECK_EQ(dynamic.check_integrity(), "");
    CHECK_EQ(dynamic.n_drafted(), size_t{5}); // 6 with 9, 7 with 8 and 9
    for (size_t i = 1; i < dynamic.size(); ++i) {
        CHECK(may_follow(dynamic, dynamic.parent[i], dynamic.token[i]));
    }
    CHECK_EQ(grow_dynamic(1, levels, false, 9, [](auto &&...) { return false; }).n_drafted(), size_t{0});
}

std::vector<Candidates> random_levels(std::mt19937 & rng, size_t n_levels, int32_t most, int32_t n_vocab) {
    std::vector<Candidates> levels;
    for (size_t d = 0; d < n_levels; ++d) {
        Ids tokens(n_vocab);
        for (int32_t i = 0; i < n_vocab; ++i) {
            tokens[i] = i;
        }
        for (int32_t i = n_vocab - 1; i > 0; --i) {
            std::swap(tokens[i], tokens[below(rng, i + 1)]);
        }
        tokens.resize(below(rng, most + 1));
        std::vector<double> p;
        for (size_t i = 0; i < tokens.size(); ++i) {
            p.push_back((1 + below(rng, 1000)) / 1001.0);
        }
        std::sort(p.rbegin(), p.rend());
        levels.push_back(level(tokens, p));
    }
    return levels;
}

// Every path of the product of the levels, with pruning: parent index and cumulative log-probability.
struct Product {
    std::vector<int32_t> parent{-1};
    std::vector<float> logp{0.0f};
};

Product all_paths(int32_t root, const std::vector<Candidates> & levels, bool prune) {
    Product all;
    std::vector<int32_t> token{root};
    size_t start = 0;
    for (const Candidates & candidates : levels) {
        const size_t end = token.size();
        for (size_t node = start; node < end; ++node) {
            for (size_t i = 0; i < candidates.token.size(); ++i) {
                if (!prune || candidates.token[i] != token[node]) {
                    token.push_back(candidates.token[i]);
                    all.parent.push_back(static_cast<int32_t>(node));
                    all.logp.push_back(all.logp[node] + candidates.logp[i]);
                }
            }
        }
        start = end;
    }
    return all;
}

double total_probability(const std::vector<float> & logp) {
    double total = 0.0;
    for (size_t i = 1; i < logp.size(); ++i) {
        total += std::exp(static_cast<double>(logp[i]));
    }
    return total;
}

// The largest total probability of n nodes closed under ancestors, by trying every such set.
double best_total(const Product & all, size_t n) {
    std::vector<bool> in(all.parent.size(), false);
    in[0] = true;
    double best = -1.0;
    const std::function<void(size_t, size_t, double)> choose = [&](size_t next, size_t n_left, double total) {
        if (n_left == 0) {
            best = std::max(best, total);
        }
        for (size_t i = next; i < all.parent.size() && n_left > 0; ++i) {
            if (in[all.parent[i]]) { // parents come first, so an absent one stays absent
                in[i] = true;
                choose(i + 1, n_left - 1, total + std::exp(static_cast<double>(all.logp[i])));
                in[i] = false;
            }
        }
    };
    choose(1, n, 0.0);
    return best;
}

void dynamic_is_the_best_of_all() {
    std::mt19937 rng(1);
    for (int round = 0; round < 300; ++round) {
        const Scope scope("round " + std::to_string(round));
        const std::vector<Candidates> levels = random_levels(rng, 1 + below(rng, 3), 3, 6);
        const bool prune = below(rng, 2) == 1;
        const int32_t root = below(rng, 6);
        const Product all = all_paths(root, levels, prune);
        const size_t n = std::min<size_t>(below(rng, 6), all.parent.size() - 1);
        const DraftTree tree = grow_dynamic(root, levels, prune, n);
        CHECK_EQ(tree.n_drafted(), n);
        CHECK_EQ(tree.check_integrity(), "");
        CHECK(std::fabs(total_probability(tree.logp) - best_total(all, n)) < 1e-6);
    }
}

// At larger sizes: the n most probable paths of all, which are closed under ancestors by themselves.
void dynamic_takes_the_most_probable() {
    std::mt19937 rng(2);
    for (int round = 0; round < 200; ++round) {
        const Scope scope("round " + std::to_string(round));
        const std::vector<Candidates> levels = random_levels(rng, 1 + below(rng, 4), 7, 9);
        const bool prune = below(rng, 2) == 1;
        const int32_t root = below(rng, 9);
        const Product all = all_paths(root, levels, prune);
        const size_t n = below(rng, 40);
        const DraftTree tree = grow_dynamic(root, levels, prune, n);
        std::vector<float> expected(all.logp.begin() + 1, all.logp.end());
        std::sort(expected.rbegin(), expected.rend());
        expected.resize(std::min(n, expected.size()));
        const std::vector<float> chosen(tree.logp.begin() + 1, tree.logp.end());
        CHECK_EQ(chosen, expected); // also found in this order
        CHECK_EQ(tree.check_integrity(), "");
    }
}

void static_properties() {
    std::mt19937 rng(3);
    for (int round = 0; round < 200; ++round) {
        const Scope scope("round " + std::to_string(round));
        const std::vector<Candidates> levels = random_levels(rng, 1 + below(rng, 4), 6, 9);
        Ids widths;
        for (int32_t d = below(rng, 5); d > 0; --d) {
            widths.push_back(below(rng, 5));
        }
        const bool prune = below(rng, 2) == 1;
        const size_t limit = below(rng, 12);
        const DraftTree tree = grow_static(below(rng, 9), levels, widths, prune, limit);
        CHECK_EQ(tree.check_integrity(), "");
        CHECK(tree.n_drafted() <= limit);
        Ids parent_of_depth(widths.size() + 1, -1);
        Ids count(widths.size() + 1, 0);
        for (size_t i = 1; i < tree.size(); ++i) {
            const int32_t d = tree.depth[i];
            CHECK(parent_of_depth[d] == -1 || parent_of_depth[d] == tree.parent[i]); // one node per depth expands
            parent_of_depth[d] = tree.parent[i];
            CHECK(++count[d] <= widths[d - 1]);
            CHECK(!prune || tree.token[i] != tree.token[tree.parent[i]]);
        }
        const Ids spine = tree.spine();
        CHECK_EQ(static_cast<int32_t>(spine.size()) - 1, *std::max_element(tree.depth.begin(), tree.depth.end()));
    }
}

void spine_follows_the_likeliest() {
    DraftTree tree(1);
    const int32_t a = tree.add(0, 10, -2.0f);
    const int32_t b = tree.add(0, 11, -1.0f);
    const int32_t c = tree.add(a, 12, -0.1f);
    CHECK_EQ(tree.spine(), (Ids{0, b})); // b has no children; the likelier child decides, not the longer path
    const int32_t d = tree.add(b, 13, -5.0f);
    const int32_t e = tree.add(b, 14, -5.0f);
    CHECK_EQ(tree.spine(), (Ids{0, b, d})); // the first of equals
    CHECK_EQ(tree.child(b, 14), e);
    CHECK_EQ(tree.child(a, 12), c);
    CHECK_EQ(tree.child(0, 12), -1);
    CHECK_EQ(tree.child(c, 12), -1);
    CHECK_EQ(DraftTree(7).spine(), (Ids{0}));
}

void integrity_finds_each_damage() {
    DraftTree good(1);
    good.add(0, 5, -1.0f);
    good.add(0, 6, -2.0f);
    good.add(1, 7, -1.0f);
    CHECK_EQ(good.check_integrity(), "");
    const auto broken = [&](const std::function<void(DraftTree &)> & damage, const std::string & says) {
        DraftTree tree = good;
        damage(tree);
        const Scope scope(says);
        CHECK(tree.check_integrity().find(says) != std::string::npos);
    };
    broken([](DraftTree & t) { t.parent.pop_back(); }, "length");
    broken([](DraftTree & t) { t.depth.push_back(1); }, "length");
    broken([](DraftTree & t) { t.logp.pop_back(); }, "length");
    broken([](DraftTree & t) { t.token.clear(), t.parent.clear(), t.depth.clear(), t.logp.clear(); }, "empty");
    broken([](DraftTree & t) { t.parent[0] = 0; }, "not a root");
    broken([](DraftTree & t) { t.depth[0] = 1; }, "not a root");
    broken([](DraftTree & t) { t.parent[3] = 3; }, "node 3 does not come after its parent");
    broken([](DraftTree & t) { t.parent[2] = 3; }, "node 2 does not come after its parent");
    broken([](DraftTree & t) { t.parent[1] = -1; }, "node 1 does not come after its parent");
    broken([](DraftTree & t) { t.depth[3] = 1; }, "node 3 has the wrong depth");
    broken([](DraftTree & t) { t.logp[3] = -0.5f; }, "node 3 is likelier than its parent");
    broken([](DraftTree & t) { t.logp[2] = std::nanf(""); }, "node 2 is likelier than its parent");
    broken([](DraftTree & t) { t.token[2] = 5; }, "node 2 repeats a sibling");
}

void trees_are_cut() {
    DraftTree tree(7);
    tree.add(tree.add(0, 10, -0.1f), 11, -0.2f);
    tree.add(0, 20, -3.0f);
    tree.truncate(3);
    CHECK_EQ(tree.token, (Ids{7, 10, 11}));
    CHECK_EQ(tree.check_integrity(), std::string());
    CHECK_EQ(tree.add(1, 12, -0.5f), 3);
    tree.truncate(1);
    CHECK_EQ(tree.n_drafted(), size_t{0});
    CHECK_EQ(tree.check_integrity(), std::string());
}

void reliability_by_class() {
    DraftTree tree(1);
    const int32_t likely = tree.add(0, 5, std::log(0.75f));
    tree.add(0, 6, std::log(0.12f));
    const int32_t below = tree.add(likely, 7, std::log(0.2f)); // 0.15 of the whole path
    tree.add(likely, 8, std::log(1e-4f));
    Reliability reliability;
    reliability.add(tree, {0, likely});
    reliability.add(tree, {0, likely, below});
    reliability.add(tree, {0});
    const Reliability::Classes & c = reliability.classes();
    CHECK_EQ(c[0].n, 3);
    CHECK_EQ(c[0].n_true, 0);
    CHECK_EQ(c[1].n, 6);
    CHECK_EQ(c[1].n_true, 1);
    CHECK(std::fabs(c[1].said - 3 * (0.12 + 0.15)) < 1e-5);
    CHECK_EQ(c[7].n, 3);
    CHECK_EQ(c[7].n_true, 2);

    DraftTree sure(1);
    sure.add(0, 5, 0.0f);
    reliability.add(sure, {0, 1});
    CHECK_EQ(c.back().n, 1);
    CHECK_EQ(c.back().n_true, 1);
}

} // namespace

int main() {
    run("static, one depth", static_one_depth);
    run("static, two depths", static_two_depths);
    run("static, pruning at the root", static_pruning_at_the_root);
    run("static, limits", static_limits);
    run("dynamic, by hand", dynamic_by_hand);
    run("dynamic, pruning", dynamic_pruning);
    run("dynamic, ties", dynamic_ties);
    run("what may not follow", what_may_not_follow_is_left_out);
    run("dynamic, the best of all sets", dynamic_is_the_best_of_all);
    run("dynamic, the most probable paths", dynamic_takes_the_most_probable);
    run("static, properties", static_properties);
    run("spine", spine_follows_the_likeliest);
    run("trees are cut", trees_are_cut);
    run("reliability", reliability_by_class);
    run("integrity", integrity_finds_each_damage);
    return finish();
}
