// The drafter alone, without a model: what each kind of tree makes of the settings, the limits and the masks' guesses,
// what it asks for, and what it keeps from text to text.
#include "check.h"
#include "drafting/drafter.h"

#include <algorithm>

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

constexpr int32_t n_vocab = 64;
constexpr PlanLimits roomy{60, 0, 30, 60};

Speculation settings(mp_tree tree, int32_t n_masks, int32_t block) {
    Speculation s;
    s.tree = tree;
    s.n_masks = n_masks;
    s.block = block;
    s.prune = false;
    if (tree == MP_TREE_MIXED) {
        s.cost.assign(static_cast<size_t>(block), 1.0f); // rows are free
        s.sources = MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY | MP_SOURCE_HISTORY;
    }
    return s;
}

Drafter drafter_of(const Speculation & speculation, const Ids & prompt) {
    Drafter drafter(n_vocab);
    drafter.begin(speculation, prompt);
    return drafter;
}

void check_bare(const Plan & plan, int32_t root) {
    CHECK_EQ(plan.tree.token, Ids{root});
    CHECK_EQ(plan.masks_of_node, Ids{0});
    CHECK_EQ(plan.candidates.size(), size_t{1});
}

// Whether some node of the plan carries the token.
bool drafts(const Plan & plan, int32_t token) {
    return std::find(plan.tree.token.begin() + 1, plan.tree.token.end(), token) != plan.tree.token.end();
}

void plain_decoding_drafts_nothing() {
    Drafter drafter = drafter_of(Speculation(), {1, 2, 3});
    const Plan plan = drafter.plan(3, roomy);
    check_bare(plan, 3);
    CHECK_EQ(plan.expected, 0.0f); // nobody asked
    CHECK_EQ(plan.price, 0.0f);
    CHECK(!drafter.learns_from_rows());
    CHECK(!drafter.guessed(1).has_value());
}

void trees_of_guesses() {
    const std::vector<Candidates> guesses{{{10, 11, 12}, {-0.1f, -0.2f, -0.3f}}, {{20, 21}, {-0.1f, -5.0f}}};
    Speculation wide = settings(MP_TREE_STATIC, 2, 18);
    wide.widths = {2, 1};
    Drafter drafter = drafter_of(wide, {1, 2, 3});
    CHECK_EQ(drafter.plan(3, roomy).tree.size(), size_t{1}); // no masks have been read yet
    CHECK_EQ(drafter.plan(3, roomy).masks_of_node, Ids{2});  // but they will be
    drafter.set_guesses(guesses);
    const Plan plan = drafter.plan(3, roomy);
    CHECK_EQ(plan.tree.token, (Ids{3, 10, 11, 20}));
    CHECK_EQ(plan.masks_of_node, (Ids{2, 2, 2, 2}));
    CHECK_EQ(plan.expected, 0.0f);
    CHECK_EQ(drafter.n_ranked(0), size_t{3}); // one more than wanted, for pruning
    CHECK_EQ(drafter.n_ranked(1), size_t{2});
    CHECK_EQ(drafter.n_ranked(2), size_t{0});

    drafter.begin(settings(MP_TREE_DYNAMIC, 2, 12), {1, 2, 3}); // a new generation knows no guesses
    CHECK_EQ(drafter.plan(3, roomy).tree.size(), size_t{1});
    drafter.set_guesses(guesses);
    CHECK_EQ(drafter.plan(3, roomy).tree.size(), size_t{4}); // 12 rows are four nodes with two masks each
    CHECK_EQ(drafter.n_ranked(0), size_t{4});
    CHECK_EQ(drafter.plan(3, {9, 2, 30, 60}).tree.size(), size_t{2}); // two of nine rows are taken
    check_bare(drafter.plan(3, {4, 2, 30, 60}), 3);
    check_bare(drafter.plan(3, {60, 0, 0, 60}), 3); // one token is wanted: none may be drafted
}

void guesses_are_scored() {
    Drafter drafter = drafter_of(settings(MP_TREE_DYNAMIC, 1, 12), {1});
    drafter.set_guesses({{{10, 11}, {-0.5f, -20.0f}}});
    CHECK_EQ(*drafter.guessed(10), -0.5f);
    CHECK_EQ(*drafter.guessed(11), list_floor);
    CHECK_EQ(*drafter.guessed(12), list_floor);
}

void mixed_trees_copy_what_repeats() {
    Drafter drafter = drafter_of(settings(MP_TREE_MIXED, 1, 8), {1, 2, 3, 4, 5, 1, 2});
    CHECK(drafter.learns_from_rows());
    const Plan plan = drafter.plan(2, roomy);
    CHECK(drafts(plan, 3));
    CHECK(plan.expected > 1.0f);
    CHECK_EQ(plan.price, 1.0f); // a token is worth a plain pass
    CHECK(plan.tree.size() <= 8);
    const Plan last = drafter.plan(2, {60, 0, 0, 60});
    check_bare(last, 2);
    CHECK_EQ(last.expected, 1.0f);
    CHECK_EQ(drafter.n_ranked(0), size_t{8});

    drafter.commit(3);
    CHECK(drafts(drafter.plan(3, roomy), 4));
    drafter.learn(plan, 0, 3, Candidates{{40}, {-0.1f}}); // the model ranked 40 after the root, 2
    drafter.commit(2);
    CHECK(drafts(drafter.plan(2, {60, 0, 1, 60}), 40));
}

// A new text knows nothing of the old one but what the model wrote in it; forget takes that too.
void texts_follow_one_another() {
    const Speculation mixed = settings(MP_TREE_MIXED, 0, 8);
    Drafter drafter = drafter_of(mixed, {1, 2});
    for (const int32_t token : {30, 31, 32, 30, 31, 32}) {
        drafter.commit(token);
    }
    drafter.begin(mixed, {1, 2, 30, 31, 32, 30, 31, 32, 30}); // goes on
    CHECK(drafts(drafter.plan(30, roomy), 31));
    drafter.begin(mixed, {9, 30}); // another text, by the user so far
    CHECK(drafts(drafter.plan(30, roomy), 31));
    Speculation without = mixed;
    without.sources = MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY;
    drafter.begin(without, {9, 30});
    CHECK(!drafts(drafter.plan(30, roomy), 31));
    drafter.forget({9, 30});
    drafter.begin(mixed, {9, 30});
    CHECK(!drafts(drafter.plan(30, roomy), 31));
    drafter.learn_text({30, 31});
    CHECK(drafts(drafter.plan(30, roomy), 31));
}

void passes_are_counted() {
    Drafter drafter = drafter_of(settings(MP_TREE_MIXED, 0, 8), {1, 2, 3, 1, 2, 3, 1, 2});
    const Plan plan = drafter.plan(2, roomy);
    if (!CHECK(plan.tree.size() > 1)) {
        return;
    }
    drafter.end_pass(plan, {0, 1});
    drafter.market().prices().observe(plan.tree.size(), 2, 1.0);
    const auto counted = [&] {
        mp_totals totals{};
        drafter.reliability().copy_to(totals);
        Ids sums{0, 0};
        for (size_t i = 0; i < MP_RELIABILITY_CLASSES; ++i) {
            sums[0] += static_cast<int32_t>(totals.said_n[i]);
            sums[1] += static_cast<int32_t>(totals.said_n_true[i]);
        }
        return sums;
    };
    CHECK_EQ(counted(), (Ids{static_cast<int32_t>(plan.tree.n_drafted()), 1}));
    CHECK(drafter.plan(2, roomy).price > 1.0f); // two tokens for the cost of one
    drafter.begin(settings(MP_TREE_MIXED, 0, 8), {5});
    CHECK_EQ(counted(), (Ids{0, 0}));
    CHECK_EQ(drafter.plan(5, roomy).price, 1.0f);
}

} // namespace

int main() {
    run("plain decoding", plain_decoding_drafts_nothing);
    run("trees of guesses", trees_of_guesses);
    run("guesses are scored", guesses_are_scored);
    run("mixed trees", mixed_trees_copy_what_repeats);
    run("texts follow one another", texts_follow_one_another);
    run("passes are counted", passes_are_counted);
    return finish();
}
