// What a pass is worth: costs and prices against hand computation, trees that hold the likeliest paths, rows
// that stop where they no longer earn, caps that are filled, and masks where the path is likely to end.
#include "check.h"
#include "drafting/planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

std::vector<float> line(float first, float slope, size_t n) {
    std::vector<float> cost(n);
    for (size_t i = 0; i < n; ++i) {
        cost[i] = first + slope * static_cast<float>(i);
    }
    return cost;
}

// A text that has been repeated, so that n-grams are believed, with an adjacency list of weak guesses.
struct Bench {
    NgramSource ngrams;
    AdjacencySource adjacency{64};
    HistorySource history;
    GrammarSource grammar{64};
    std::vector<Candidates> guesses;
    int32_t sources = MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY;
    Mixer mixer;

    explicit Bench(const Ids & text) {
        for (const int32_t token : text) {
            ngrams.push(token);
        }
    }
    Plan plan(const Budget & budget, const PlanLimits & limits) {
        return make_plan(ngrams.tokens().back(), {ngrams, adjacency, history, grammar, guesses, sources}, mixer, budget,
                         limits);
    }
};

Ids repeated(const Ids & part, int times, size_t cut) {
    Ids text;
    for (int i = 0; i < times; ++i) {
        text.insert(text.end(), part.begin(), part.end());
    }
    text.resize(text.size() - cut);
    return text;
}

const Ids song{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

void check_plan(const Plan & plan, const PlanLimits & limits) {
    CHECK_EQ(plan.tree.check_integrity(), std::string());
    CHECK_EQ(plan.masks_of_node.size(), plan.tree.size());
    CHECK_EQ(plan.candidates.size(), plan.tree.size());
    size_t rows = limits.n_again + plan.tree.size();
    for (const int32_t masks : plan.masks_of_node) {
        CHECK(masks == 0 || masks == limits.masks);
        rows += static_cast<size_t>(masks);
    }
    CHECK(rows <= std::max(limits.rows, limits.n_again + 1));
    CHECK(*std::max_element(plan.tree.depth.begin(), plan.tree.depth.end()) <= static_cast<int32_t>(limits.depth));
}

void copying_becomes_a_chain() {
    Bench bench(repeated(song, 4, 8)); // ends with 1 2 3 4
    const PlanLimits limits{8, 0, 64, 64, 0};
    const Plan plan = bench.plan(Budget(line(1.0f, 0.0f, 8), false), limits);
    check_plan(plan, limits);
    const Ids spine = plan.tree.spine();
    for (size_t i = 1; i < std::min<size_t>(spine.size(), 6); ++i) {
        CHECK_EQ(plan.tree.token[spine[i]], static_cast<int32_t>(4 + i));
    }
    CHECK(spine.size() >= 6);
}

void rows_stop_where_they_no_longer_earn() {
    Bench bench(repeated(song, 4, 8));
    // Every row costs a plain pass: nothing can be gained, whatever is believed.
    CHECK_EQ(bench.plan(Budget(line(1.0f, 1.0f, 60), false), {60, 0, 64, 64, 1}).tree.size(), size_t{1});
    size_t before = 60;
    for (const float slope : {0.0f, 0.1f, 0.3f, 0.6f, 0.9f}) {
        const Plan plan = bench.plan(Budget(line(1.0f, slope, 60), false), {60, 0, 64, 64, 1});
        CHECK(plan.tree.size() <= before);
        before = plan.tree.size();
        if (slope > 0.0f) {
            // A drafted node that cannot pay for its own row is never taken on a straight line.
            for (size_t i = 1; i < plan.tree.size(); ++i) {
                CHECK(std::exp(plan.tree.logp[i]) > slope * 0.999f);
            }
        }
    }
}

void steps_in_the_curve_are_used() {
    // 2 and 3 rows are dear, 4 cost little more than 1.
    std::vector<float> cost{1.0f, 3.0f, 3.0f, 1.05f};
    Bench bench(repeated(song, 4, 8));
    const Plan plan = bench.plan(Budget(cost, false), {4, 0, 64, 64, 0});
    CHECK_EQ(plan.tree.size(), size_t{4});
}

void sources_can_be_turned_off() {
    Bench bench(repeated(song, 4, 8)); // ends with 4: n-grams say 5
    bench.adjacency.refresh(4, Candidates{{20}, {-0.1f}});
    const auto proposed = [&](int32_t sources) {
        bench.sources = sources;
        const Plan plan = bench.plan(Budget(line(1.0f, 0.0f, 60), false), {60, 0, 1, 64, 0});
        std::vector<int32_t> tokens(plan.tree.token.begin() + 1, plan.tree.token.end());
        std::sort(tokens.begin(), tokens.end());
        return tokens;
    };
    CHECK_EQ(proposed(0), Ids{});
    CHECK_EQ(proposed(MP_SOURCE_NGRAMS), Ids{5});
    CHECK_EQ(proposed(MP_SOURCE_ADJACENCY), Ids{20});
    bench.history.learn({4, 30}, 0);
    CHECK_EQ(proposed(MP_SOURCE_HISTORY), Ids{30});
    CHECK_EQ(proposed(MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY), (Ids{5, 20}));
}

void masks_sit_where_the_path_ends() {
    Bench bench({1, 2, 3, 4}); // nothing to copy: the path most likely ends at the root
    bench.adjacency.refresh(4, Candidates{{20, 21, 22}, {-0.7f, -1.0f, -2.0f}});
    const PlanLimits limits{12, 1, 64, 64, 2};
    const Plan plan = bench.plan(Budget(line(1.0f, 0.0f, 12), false), limits);
    check_plan(plan, limits);
    CHECK_EQ(plan.masks_of_node[0], 2);
    const Plan bare = bench.plan(Budget(line(1.0f, 0.0f, 12), false), {12, 1, 64, 64, 0});
    CHECK(std::all_of(bare.masks_of_node.begin(), bare.masks_of_node.end(), [](int32_t n) { return n == 0; }));
}

void a_believed_path_needs_no_mask_before_its_end() {
    Bench bench(repeated(song, 4, 8));
    const Plan plan = bench.plan(Budget(line(1.0f, 0.05f, 60), false), {60, 0, 64, 64, 1});
    CHECK(plan.tree.size() > 4);
    CHECK_EQ(plan.masks_of_node[0], 0);
}

void a_step_must_be_paid_as_a_whole() {
    // From 2 rows on further ones are nearly free, but two weak guesses do not pay for the first step.
    Bench bench({1, 2, 3, 4});
    bench.adjacency.refresh(4, Candidates{{20, 21}, {-1.0f, -2.0f}});
    CHECK_EQ(bench.plan(Budget(line(1.0f, 0.01f, 8), false), {8, 0, 64, 64, 0}).tree.size(), size_t{3});
    std::vector<float> cost = line(1.95f, 0.01f, 8);
    cost[0] = 1.0f;
    CHECK_EQ(bench.plan(Budget(cost, false), {8, 0, 64, 64, 0}).tree.size(), size_t{1});
}

int32_t count_branches(const Plan & plan) {
    std::vector<int32_t> below(plan.tree.size(), 0);
    for (size_t i = 0; i < plan.tree.size(); ++i) {
        below[i] += plan.masks_of_node[i] > 0 ? 1 : 0;
        if (i > 0) {
            ++below[plan.tree.parent[i]];
        }
    }
    return std::accumulate(below.begin(), below.end(), 0, [](int32_t n, int32_t b) { return n + std::max(1, b) - 1; }) +
           1;
}

void limits_hold() {
    std::mt19937 rng(11);
    for (int round = 0; round < 300; ++round) {
        const Scope scope("round " + std::to_string(round));
        Ids text;
        for (int i = 0, n = 2 + below(rng, 60); i < n; ++i) {
            text.push_back(below(rng, 8));
        }
        Bench bench(text);
        for (int32_t token = 0; token < 8; ++token) {
            bench.adjacency.refresh(token, Candidates{{below(rng, 8), 8 + below(rng, 8)}, {-0.5f, -1.0f}});
        }
        if (below(rng, 2) == 0) {
            bench.guesses.push_back(Candidates{{30, 31, below(rng, 8)}, {-0.3f, -1.5f, -2.0f}});
        }
        const PlanLimits limits{static_cast<size_t>(1 + below(rng, 40)), static_cast<size_t>(below(rng, 4)),
                                static_cast<size_t>(1 + below(rng, 6)), static_cast<size_t>(1 + below(rng, 12)),
                                below(rng, 3)};
        const Plan plan = bench.plan(Budget(line(1.0f, 0.02f * below(rng, 30), 60), false), limits);
        check_plan(plan, limits);
        CHECK(count_branches(plan) <= static_cast<int32_t>(limits.leaves));
        CHECK(plan.expected >= 1.0f && std::isfinite(plan.expected));
    }
}

// Texts whose chains must be equally long: what one would draft alone must earn the rows of all.
void equal_chains_pay_for_all() {
    Bench sure(repeated(song, 4, 5));
    Bench unsure({1, 2, 3, 4, 5, 6, 7, 8});
    PlanLimits limits{12, 0, 64, 1, 0};
    limits.chain = true;
    const auto propose_of = [&](const Bench & bench, const Budget & budget) {
        const Evidence evidence{bench.ngrams,  bench.adjacency, bench.history,
                                bench.grammar, bench.guesses,   bench.sources};
        return propose(bench.ngrams.tokens().back(), evidence, bench.mixer, budget, limits);
    };
    const auto numbers = [&](float slope, size_t n_texts, size_t most_rows) {
        const Budget budget(line(1.0f, slope, 60), false);
        const Proposal one = propose_of(sure, budget);
        const Proposal other = propose_of(unsure, budget);
        CHECK_EQ(other.rows.size(), size_t{0});
        return choose_equal_numbers({&one, &other}, budget, n_texts, most_rows);
    };
    CHECK(numbers(0.01f, 2, 60)[0] > 4);
    CHECK_EQ(numbers(0.01f, 2, 60)[1], size_t{0});
    CHECK_EQ(numbers(0.01f, 2, 9)[0], size_t{3}); // four rows each
    CHECK(numbers(0.08f, 2, 60)[0] > 0);
    CHECK_EQ(numbers(0.08f, 12, 60)[0], size_t{0}); // a row of it is one of each of the others
}

void prices_follow_success_and_loss() {
    Budget won(line(1.0f, 0.5f, 4), false);
    CHECK_EQ(won.price(), 1.0f);
    for (int i = 0; i < 50; ++i) {
        won.observe(2, 2, 1.9f, 0.0); // 2 tokens for 1.5
    }
    CHECK(std::fabs(won.price() - 2.0f / 1.5f) < 1e-3f);
    CHECK_EQ(won.trust(), 1.0f);

    Budget lost(line(1.0f, 0.5f, 4), false);
    for (int i = 0; i < 10; ++i) {
        lost.observe(2, 1, 1.9f, 0.0); // promised 0.9, got nothing
    }
    CHECK(lost.trust() < 0.6f);
    CHECK(lost.price() > 1.2f);
    const float worst = lost.price();
    for (int i = 0; i < 300; ++i) {
        lost.observe(1, 1, 1.0f, 0.0);
    }
    CHECK(lost.price() < worst); // plain passes make it forget
}

// Another number of rows than before costs more, and that is nothing that the curve learns.
void changes_cost() {
    Budget budget(line(10.0f, 1.0f, 4), true, 2.0f);
    CHECK_EQ(budget.cost(2), 11.0f);
    budget.observe(1, 1, 1.0f, 10.0);
    CHECK_EQ(budget.cost(1), 10.0f);
    CHECK_EQ(budget.cost(2), 13.0f);
    budget.observe(2, 2, 2.0f, 13.0);
    CHECK_EQ(budget.cost(2), 11.0f);
    CHECK_EQ(budget.cost(1), 12.0f);
    CHECK_EQ(Budget(line(10.0f, 1.0f, 4), true, 2.0f).price(), 0.1f); // plain decoding changes nothing
    budget.begin_text();
    CHECK_EQ(budget.cost(1), 10.0f);
}

void curves_learn_from_passes() {
    Budget budget(line(10.0f, 1.0f, 16), true);
    CHECK_EQ(budget.cost(3), 12.0f);
    CHECK_EQ(Budget(line(10.0f, 1.0f, 4), false).cost(6), 15.0f);
    for (int i = 0; i < 200; ++i) {
        budget.observe(1, 1, 1.0f, 5.0);       // the machine is twice as fast as measured,
        budget.observe(4, 2, 2.0f, 6.5 * 2.0); // but 4 rows cost twice what the curve says
        if (i % 10 == 5) {
            budget.observe(1, 1, 1.0f, 5.0 * 1000.0); // and now and then something interrupts
        }
        budget.observe(1, 1, 1.0f, 5.0);
    }
    CHECK(std::fabs(budget.cost(4) / budget.cost(1) - 2.6f) < 0.5f);
    CHECK(budget.cost(5) / budget.cost(1) > 1.5f); // its neighbours follow
}

void interruptions_do_not_count() {
    Budget budget(line(10.0f, 1.0f, 16), true);
    for (int i = 0; i < 300; ++i) {
        budget.observe(1, 1, 1.0f, i % 20 == 0 ? 60.0 : 10.0);
        budget.observe(3, 1, 1.0f, i % 20 == 10 ? 60.0 : 12.0);
        CHECK(std::fabs(budget.cost(3) / budget.cost(1) - 1.2f) < 0.1f);
    }
}

void a_curve_measured_too_dear_is_found_out() {
    // A busy machine at load: every further row seemed to cost a pass, but costs a tenth.
    Budget budget(line(1.0f, 1.0f, 16), true);
    const float price = budget.price();
    for (int i = 0; i < 600; ++i) {
        budget.observe(1, 1, 1.0f, 10.0);
    }
    CHECK(budget.price() < 0.8f * price); // nothing drafted for long: rows are worth a try
    budget.observe(2, 1, 1.5f, 11.0);
    CHECK(budget.price() >= price); // tried
    for (int i = 0; i < 60; ++i) {
        budget.observe(1, 1, 1.0f, 10.0);
        budget.observe(2, 2, 1.5f, 11.0);
    }
    CHECK(std::fabs(budget.cost(2) - 1.1f) < 0.1f);
    CHECK(budget.cost(4) < 3.0f); // sizes that were never tried follow

    Budget given(line(1.0f, 1.0f, 16), false);
    for (int i = 0; i < 600; ++i) {
        given.observe(1, 1, 1.0f, 0.0);
    }
    CHECK_EQ(given.price(), 1.0f); // a curve that was given is not doubted
}

} // namespace

int main() {
    run("copying becomes a chain", copying_becomes_a_chain);
    run("rows stop where they no longer earn", rows_stop_where_they_no_longer_earn);
    run("steps in the curve", steps_in_the_curve_are_used);
    run("sources", sources_can_be_turned_off);
    run("masks", masks_sit_where_the_path_ends);
    run("no masks on a believed path", a_believed_path_needs_no_mask_before_its_end);
    run("steps are paid as a whole", a_step_must_be_paid_as_a_whole);
    run("limits", limits_hold);
    run("equal chains", equal_chains_pay_for_all);
    run("prices", prices_follow_success_and_loss);
    run("changes_cost", changes_cost);
    run("curves", curves_learn_from_passes);
    run("interruptions", interruptions_do_not_count);
    run("dear curves", a_curve_measured_too_dear_is_found_out);
    return finish();
}
