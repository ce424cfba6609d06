// Passes one by one: masks whose drafts are accepted in a known pattern give exact numbers of rows, drafted,
// accepted and again-decoded tokens; runs of accepted tokens end where an end token or the limit says; and the
// masks that the model receives are the start values moved by every committed token in order.
#include "error.h"
#include "session_fixture.h"

#include <cmath>

using namespace mp;
using namespace mp::test;

namespace {

const Ids prompt{3, 1, 4, 1, 5};

MockLlama model_with(const std::function<int32_t(int32_t, size_t)> & rank_of_truth) {
    MockLlama model;
    model.rank_of_truth = rank_of_truth;
    return model;
}

// Rows, drafted, accepted, again, committed.
using Numbers = std::vector<int32_t>;

Numbers numbers(const Pass & pass) {
    return {pass.n_rows, pass.n_drafted, pass.n_accepted, pass.n_again, static_cast<int32_t>(pass.tokens.size())};
}

// The passes of a generation of max_tokens tokens: the prompt, first (no masks read yet), then second, then rest
// again and again, then last if it is not empty.
void check_pattern(const MockLlama & model, const Speculation & speculation, int32_t max_tokens,
                   const std::vector<Numbers> & start, const Numbers & rest, const std::vector<Numbers> & last) {
    Bench bench(model);
    const Generation g = generate(bench, prompt, speculation, max_tokens);
    CHECK_EQ(g.tokens, plain_decode(model, prompt, 0, max_tokens));
    std::vector<Numbers> expected{{static_cast<int32_t>(prompt.size()), 0, 0, 0, 1}};
    expected.insert(expected.end(), start.begin(), start.end());
    while (expected.size() + last.size() < g.passes.size()) {
        expected.push_back(rest);
    }
    expected.insert(expected.end(), last.begin(), last.end());
    std::vector<Numbers> found;
    for (const Pass & pass : g.passes) {
        found.push_back(numbers(pass));
    }
    CHECK_EQ(found, expected);
}

void one_mask() {
    const auto always = [](int32_t rank) { return model_with([rank](int32_t, size_t) { return rank; }); };
    MockLlama model = always(0);
    const Speculation speculation = speculate(model, 1, {4}, 10);
    // 1 + 1 + 2 n tokens, then a single one is left: a single row.
    check_pattern(model, speculation, 21, {{2, 0, 0, 0, 1}}, {10, 4, 1, 0, 2}, {{1, 0, 0, 0, 1}});
    check_pattern(model, speculation, 22, {{2, 0, 0, 0, 1}}, {10, 4, 1, 0, 2}, {});
    // Never: one token a pass, and the last without a draft.
    check_pattern(always(-1), speculation, 12, {{2, 0, 0, 0, 1}}, {10, 4, 0, 0, 1}, {{1, 0, 0, 0, 1}});
    // The widths are the limit: the fifth candidate is not drafted.
    check_pattern(always(4), speculation, 12, {{2, 0, 0, 0, 1}}, {10, 4, 0, 0, 1}, {{1, 0, 0, 0, 1}});
    // Off the spine: accepted, then decoded again with the next block.
    check_pattern(always(3), speculation, 22, {{2, 0, 0, 0, 1}, {10, 4, 1, 0, 2}}, {11, 4, 1, 1, 2}, {});
    check_pattern(always(1), speculation, 21, {{2, 0, 0, 0, 1}, {10, 4, 1, 0, 2}}, {11, 4, 1, 1, 2}, {{2, 0, 0, 1, 1}});
    // A block that fits the root and its mask drafts nothing; one for three nodes drafts two.
    check_pattern(model, speculate(model, 1, {4}, 3), 9, {{2, 0, 0, 0, 1}}, {2, 0, 0, 0, 1}, {{1, 0, 0, 0, 1}});
    check_pattern(model, speculate(model, 1, {4}, 7), 22, {{2, 0, 0, 0, 1}}, {6, 2, 1, 0, 2}, {});
}

void two_masks() {
    const auto ranks = [](int32_t first, int32_t second) {
        return model_with([=](int32_t, size_t mask) { return mask == 0 ? first : second; });
    };
    const auto check = [](const MockLlama & model, int32_t n, const Numbers & second, const Numbers & rest) {
        check_pattern(model, speculate(model, 2, {3, 2}, 18), n, {{3, 0, 0, 0, 1}, second}, rest, {});
    };
    check(ranks(0, 0), 2 + 3 * 6, {18, 5, 2, 0, 3}, {18, 5, 2, 0, 3});
    check(ranks(0, -1), 2 + 2 * 6, {18, 5, 1, 0, 2}, {18, 5, 1, 0, 2});
    check(ranks(0, 1), 2 + 3 * 6, {18, 5, 2, 0, 3}, {19, 5, 2, 1, 3}); // the second one is off the spine
    check(ranks(2, 0), 2 + 2 * 6, {18, 5, 1, 0, 2}, {19, 5, 1, 1, 2}); // off the spine nothing was expanded
}

void three_masks() {
    const MockLlama model = model_with([](int32_t, size_t) { return 0; });
    check_pattern(model, speculate(model, 3, {2, 2, 2}, 28), 2 + 4 * 5, {{4, 0, 0, 0, 1}}, {28, 6, 3, 0, 4}, {});
    const MockLlama fourth = model_with([](int32_t, size_t mask) { return mask == 3 ? 1 : 0; });
    check_pattern(fourth, speculate(fourth, 4, {1, 1, 1, 2}, 30), 2 + 5 * 4, {{5, 0, 0, 0, 1}, {30, 5, 4, 0, 5}},
                  {31, 5, 4, 1, 5}, {});
}

// Two candidates share the probability of each depth, so six nodes are the whole binary tree.
void dynamic_tree() {
    MockLlama model;
    model.logit_of_rank = [](int32_t rank) { return rank < 2 ? -0.1f * static_cast<float>(rank) : -20.0f; };
    const auto check = [&](int32_t first, int32_t second, int32_t n, const Numbers & start, const Numbers & rest) {
        model.rank_of_truth = [=](int32_t, size_t mask) { return mask == 0 ? first : second; };
        check_pattern(model, speculate(model, 2, {}, 21), n, {{3, 0, 0, 0, 1}, start}, rest, {});
    };
    check(0, 0, 2 + 3 * 6, {21, 6, 2, 0, 3}, {21, 6, 2, 0, 3});
    check(0, 1, 2 + 3 * 6, {21, 6, 2, 0, 3}, {22, 6, 2, 1, 3});
    check(1, 0, 2 + 3 * 6, {21, 6, 2, 0, 3}, {23, 6, 2, 2, 3});
    check(1, 1, 2 + 3 * 6, {21, 6, 2, 0, 3}, {23, 6, 2, 2, 3});
    check(1, -1, 2 + 2 * 6, {21, 6, 1, 0, 2}, {22, 6, 1, 1, 2});
    model.rank_of_truth = [](int32_t, size_t mask) { return mask == 0 ? -1 : 0; };
    check_pattern(model, speculate(model, 2, {}, 21), 8, {{3, 0, 0, 0, 1}}, {21, 6, 0, 0, 1}, {{1, 0, 0, 0, 1}});
}

// A pattern that changes from slot to slot: on the spine, off it, rejected. Rows follow from the pass before.
void mixed_pattern() {
    const MockLlama model = model_with([](int32_t pos, size_t) { return pos % 3 - 1; });
    Bench bench(model);
    const Generation g = generate(bench, prompt, speculate(model, 1, {2}, 6), 40);
    CHECK_EQ(g.tokens, plain_decode(model, prompt, 0, 40));
    int32_t pos = static_cast<int32_t>(prompt.size()); // of the root
    int32_t n_again = 0;
    for (size_t i = 2; i + 1 < g.passes.size(); ++i) {
        pos += static_cast<int32_t>(g.passes[i - 1].tokens.size());
        const int32_t rank = (pos + 1) % 3 - 1; // of the token after the root
        CHECK_EQ(numbers(g.passes[i]), (Numbers{6 + n_again, 2, rank >= 0, n_again, rank >= 0 ? 2 : 1}));
        n_again = rank == 1;
    }
}

// A candidate that repeats its parent gives way to one more, which is read for this case.
void pruned_drafts() {
    const MockLlama model = model_with([](int32_t, size_t) { return 4; });
    Speculation speculation = speculate(model, 1, {4}, 10);
    speculation.prune = true;
    Bench bench(model);
    const Generation g = generate(bench, prompt, speculation, 60);
    CHECK_EQ(g.tokens, plain_decode(model, prompt, 0, 60));
    // The truth has rank 4 of 0..3 drafted: it is accepted exactly where the root's token was among the first
    // four and left its place.
    size_t n_accepted = 0;
    for (size_t i = 2; i < g.passes.size() && g.passes[i].n_drafted > 0; ++i) {
        const std::vector<MockRow> & rows = bench.llama.history[i];
        const int32_t root = rows[g.passes[i].n_again].token;
        CHECK_EQ(g.passes[i].n_drafted, 4);
        for (int32_t row = 1; row <= 4; ++row) {
            CHECK(rows[g.passes[i].n_again + row].token != root);
        }
        n_accepted += g.passes[i].n_accepted;
    }
    CHECK(n_accepted > 0);
}

// A generation that is given up for another leaves it no drafts, no masks and no limit.
void another_prompt_midway() {
    const MockLlama model = model_with([](int32_t, size_t) { return 0; });
    Bench bench(model);
    Speculation speculation = speculate(model, 1, {4}, 10);
    speculation.update = 0.5f;
    for (const bool reuse : {false, true}) {
        MockSampler sampler;
        bench.session.begin(prompt, sampler.get(), speculation, 9, false);
        bench.session.prefill();
        bench.session.step(); // has read its masks
        const Ids next{3, 1, 4, 2};
        const Generation g = generate(bench, next, speculation, 12, 0, reuse);
        CHECK_EQ(g.n_reused, size_t{reuse ? 3u : 0u});
        CHECK_EQ(g.tokens, plain_decode(model, next, 0, 12));
        CHECK_EQ(numbers(g.passes[1]), (Numbers{2, 0, 0, 0, 1}));
    }
}

// Every row that can be read asks for its logits, and no other; all rows of a block come in one call.
void outputs() {
    const MockLlama model = model_with([](int32_t, size_t) { return 1; });
    Bench bench(model);
    const Generation g = generate(bench, prompt, speculate(model, 1, {4}, 10), 20);
    CHECK_EQ(bench.llama.history.size(), g.passes.size());
    for (size_t i = 0; i < g.passes.size(); ++i) {
        const std::vector<MockRow> & rows = bench.llama.history[i];
        const size_t n_silent = i == 0 ? prompt.size() - 1 : g.passes[i].n_again;
        for (size_t row = 0; row < rows.size(); ++row) {
            CHECK_EQ(rows[row].output, row >= n_silent);
        }
    }
}

// An end token ends the generation where it stands, be it drafted, bonus or the first.
void end_tokens() {
    MockLlama model = model_with([](int32_t, size_t) { return 0; });
    const Ids plain = plain_decode(model, prompt, 0, 20);
    size_t n_inside = 0;
    for (size_t j = 0; j < plain.size(); ++j) {
        if (std::find(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(j), plain[j]) !=
            plain.begin() + static_cast<std::ptrdiff_t>(j)) {
            continue; // it would have ended earlier
        }
        const Scope scope("end token " + std::to_string(j));
        model.eog = {plain[j]};
        Bench bench(model);
        const Generation g = generate(bench, prompt, speculate(model, 2, {3, 2}, 18), 20);
        CHECK_EQ(g.tokens, Ids(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(j) + 1));
        CHECK(g.end);
        // Passes commit tokens 0, 1, 2-4, 5-7 and so on.
        CHECK_EQ(static_cast<size_t>(g.passes.back().n_accepted), j < 2 ? size_t{0} : (j - 2) % 3);
        n_inside += j >= 2 && (j - 2) % 3 < 2;
        CHECK_ERROR(MP_ERROR_ARGUMENT, "", bench.session.step());
        check_kv(bench.llama, bench.session);
    }
    CHECK(n_inside > 3);
}

void limits_cut_runs() {
    const MockLlama model = model_with([](int32_t, size_t) { return 0; });
    const Ids plain = plain_decode(model, prompt, 0, 20);
    for (int32_t n = 1; n <= 20; ++n) {
        const Scope scope("max_tokens " + std::to_string(n));
        Bench bench(model);
        const Generation g = generate(bench, prompt, speculate(model, 2, {3, 2}, 18), n);
        CHECK_EQ(g.tokens, Ids(plain.begin(), plain.begin() + n));
        CHECK(!g.end);
        CHECK_ERROR(MP_ERROR_ARGUMENT, "ended", bench.session.step());
    }
}

// Long prompts come in chunks of n_batch; only the last chunk commits.
void prompt_chunks() {
    MockLlama model;
    model.n_batch = 8;
    model.n_ubatch = 4;
    std::mt19937 rng(5);
    for (const size_t n : {7, 8, 9, 16, 17}) {
        const Scope scope("prompt of " + std::to_string(n));
        Bench bench(model);
        const Ids tokens = random_tokens(rng, n, model.n_vocab);
        const Generation g = generate(bench, tokens, speculate(model, 1, {1}, 4), 6);
        CHECK_EQ(g.tokens, plain_decode(model, tokens, 0, 6));
        for (size_t i = 0; i < (n + 7) / 8; ++i) {
            CHECK_EQ(g.passes[i].n_rows, static_cast<int32_t>(std::min<size_t>(8, n - 8 * i)));
            CHECK_EQ(g.passes[i].tokens.size(), size_t{8 * (i + 1) >= n});
        }
    }
}

// [ESP, eq. 5] once per committed token, in order; every node's masks are the same.
void masks_follow_the_tokens() {
    const MockLlama model = model_with([](int32_t pos, size_t) { return pos % 5 - 1; });
    Bench bench(model);
    for (const float update : {0.0f, 0.1f, 0.5f}) {
        const Scope scope("update " + std::to_string(update));
        Speculation speculation = speculate(model, 2, {}, 18);
        speculation.update = update;
        std::vector<float> expected = speculation.masks; // each generation starts from them
        const size_t n_before = bench.llama.history.size();
        const Generation g = generate(bench, prompt, speculation, 30);
        size_t n_compared = 0;
        for (size_t i = 0; i < g.passes.size(); ++i) {
            size_t mask = 0; // masks of a node follow each other
            for (const MockRow & row : bench.llama.history[n_before + i]) {
                for (int32_t j = 0; row.token < 0 && j < model.n_embd; ++j, ++n_compared) {
                    const float x = expected[mask * model.n_embd + j];
                    CHECK(std::fabs(row.embd[j] - x) <= 1e-5f * std::fabs(x));
                }
                mask = row.token < 0 ? (mask + 1) % 2 : mask;
            }
            for (const int32_t token : g.passes[i].tokens) {
                const std::vector<float> e = model.embedding_row(token);
                for (size_t j = 0; j < expected.size(); ++j) {
                    expected[j] += update * (e[j % model.n_embd] - expected[j]);
                }
            }
        }
        CHECK(n_compared > 500);
    }
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("one mask", one_mask);
    run("two masks", two_masks);
    run("three and four masks", three_masks);
    run("dynamic tree", dynamic_tree);
    run("mixed pattern", mixed_pattern);
    run("pruned drafts", pruned_drafts);
    run("another prompt midway", another_prompt_midway);
    run("outputs", outputs);
    run("end tokens", end_tokens);
    run("limits cut runs", limits_cut_runs);
    run("prompt chunks", prompt_chunks);
    run("masks follow the tokens", masks_follow_the_tokens);
    return finish();
}
