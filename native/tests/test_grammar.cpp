// Drafts under a grammar: what its keeper forbids is in no plan, what is forced or has followed in the same place comes
// first, and what one of few must follow is certain. Whatever a keeper says, the tokens are those of plain decoding.
#include "drafting/planner.h"
#include "error.h"
#include "session_fixture.h"

#include <cmath>
#include <set>

using namespace mp;
using namespace mp::test;

namespace {

constexpr int32_t n_vocab = 70; // no multiple of a word's bits

// A keeper that allows what a function of the drafted tokens says.
struct Keeper {
    struct Answer {
        std::set<int32_t> allowed;
        int32_t forced = -1;
        bool knows = true;
    };
    std::function<Answer(const Ids & drafted)> answer;
    std::vector<Ids> asked;

    static int ask(void * data, const int32_t * drafted, size_t n, uint32_t * allowed, int32_t * forced) {
        auto & keeper = *static_cast<Keeper *>(data);
        keeper.asked.emplace_back(drafted, drafted + n);
        const Answer answer = keeper.answer(keeper.asked.back());
        for (const int32_t token : answer.allowed) {
            allowed[token / 32] |= 1u << token % 32;
        }
        *forced = answer.forced;
        return answer.knows ? 1 : 0;
    }
};

struct Evident {
    NgramSource ngrams;
    AdjacencySource adjacency{n_vocab};
    HistorySource history;
    GrammarSource grammar{n_vocab};
    std::vector<Candidates> guesses;
    Mixer mixer;
    Keeper keeper;

    Evident() {
        ngrams.push(1);
        grammar.begin(&Keeper::ask, &keeper);
    }
    Plan plan(size_t rows, size_t depth = 8) {
        const Budget free_rows(std::vector<float>(rows, 1.0f), false);
        return make_plan(ngrams.tokens().back(),
                         {ngrams, adjacency, history, grammar, guesses, MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY}, mixer,
                         free_rows, {rows, 0, depth, 64, 0});
    }
};

// All tokens but some.
std::set<int32_t> all_but(const std::set<int32_t> & forbidden) {
    std::set<int32_t> allowed;
    for (int32_t token = 0; token < n_vocab; ++token) {
        if (forbidden.count(token) == 0) {
            allowed.insert(token);
        }
    }
    return allowed;
}

void what_is_forbidden_gets_no_row() {
    Evident evident;
    evident.adjacency.refresh(1, Candidates{{20, 21, 22}, {-0.5f, -1.5f, -2.5f}});
    evident.adjacency.refresh(21, Candidates{{23, 24}, {-0.5f, -1.5f}});
    evident.keeper.answer = [](const Ids & drafted) {
        return Keeper::Answer{all_but(drafted.empty() ? std::set<int32_t>{20} : std::set<int32_t>{23})};
    };
    const Plan plan = evident.plan(8);
    const std::set<int32_t> drafted(plan.tree.token.begin() + 1, plan.tree.token.end());
    CHECK(drafted.count(20) + drafted.count(23) == 0);
    CHECK(drafted.count(21) + drafted.count(22) + drafted.count(24) == 3);
    // It was asked for each node by the tokens that lead there.
    for (const Ids & asked : evident.keeper.asked) {
        CHECK(asked.empty() || asked.front() == 21 || asked.front() == 22);
    }
    evident.keeper.answer = [](const Ids &) { return Keeper::Answer{{}, -1, false}; };
    const Plan unguided = evident.plan(8);
    CHECK_EQ(unguided.tree.token[1], 20); // nothing is known: nothing is forbidden
    evident.keeper.answer = [](const Ids &) { return Keeper::Answer{{}}; };
    CHECK_EQ(evident.plan(8).tree.size(), size_t{1});
}

void what_is_forced_is_certain() {
    Evident evident;
    evident.keeper.answer = [](const Ids & drafted) {
        return Keeper::Answer{{static_cast<int32_t>(40 + drafted.size())}};
    };
    const Plan chain = evident.plan(8);
    CHECK_EQ(chain.tree.token, (Ids{1, 40, 41, 42, 43, 44, 45, 46}));
    CHECK_EQ(chain.expected, 8.0f);
    CHECK_EQ(chain.candidates[0].p_none, 0.0f);
    // Of several tokens that may begin a text, the one that the keeper names.
    evident.keeper.answer = [](const Ids &) { return Keeper::Answer{{50, 51, 52}, 51}; };
    const Plan named = evident.plan(2);
    CHECK_EQ(named.tree.token, (Ids{1, 51}));
    CHECK(named.expected > 1.5f && named.expected < 2.0f);
    float total = 0.0f;
    for (const Candidate & item : named.candidates[0].items) {
        total += item.p;
    }
    CHECK(std::fabs(total - 1.0f) < 1e-4f);
}

void a_keeper_that_errs_is_survived() {
    Evident evident;
    for (const int32_t forced : {-5, 30, n_vocab, n_vocab + 1000000, INT32_MAX, INT32_MIN}) {
        evident.keeper.answer = [forced](const Ids &) { return Keeper::Answer{{50, 51}, forced}; };
        const Plan plan = evident.plan(6, 2);
        CHECK(std::all_of(plan.tree.token.begin() + 1, plan.tree.token.end(),
                          [](int32_t token) { return token == 50 || token == 51; }));
    }
    // Bits behind the vocabulary are nothing.
    const auto all_bits = [](void *, const int32_t *, size_t, uint32_t * allowed, int32_t *) {
        std::fill_n(allowed, (n_vocab + 31) / 32, ~0u);
        return 1;
    };
    evident.grammar.begin(all_bits, nullptr);
    CHECK_EQ(evident.grammar.look(nullptr, 0)->n_allowed, static_cast<size_t>(n_vocab));
    evident.grammar.begin(nullptr, nullptr);
    CHECK(!evident.grammar.look(nullptr, 0).has_value());
}

// What followed where the same was allowed, whatever the tokens before were.
void places_remember() {
    Evident evident;
    const std::set<int32_t> here = all_but({3});
    const std::set<int32_t> there = all_but({4});
    std::set<int32_t> now = here;
    evident.keeper.answer = [&](const Ids &) { return Keeper::Answer{now}; };
    CHECK_EQ(evident.plan(4, 1).tree.size(), size_t{1});
    const CandidateSet set = evident.plan(4, 1).candidates[0];
    evident.grammar.learn(set, 1, 33);
    evident.grammar.learn(set, 9, 33);
    evident.grammar.learn(set, 9, 34);
    CHECK_EQ(evident.plan(2, 1).tree.token, (Ids{1, 33}));
    evident.ngrams.push(9);
    CHECK_EQ(evident.plan(4, 1).tree.size(), size_t{3}); // 33 and 34
    now = there;
    CHECK_EQ(evident.plan(4, 1).tree.size(), size_t{1});
    now = here;
    evident.grammar.forget();
    CHECK_EQ(evident.plan(4, 1).tree.size(), size_t{1});
    evident.grammar.learn(CandidateSet{}, 1, 33); // of no grammar's place
    CHECK_EQ(evident.plan(4, 1).tree.size(), size_t{1});
}

// A keeper that knows a grammar: after token t comes one of few, by a rule that the tokens of plain decoding follow.
void certain_drafts_save_passes() {
    const MockLlama model;
    const Ids prompt{3, 1, 4, 1, 5};
    const Ids plain = plain_decode(model, prompt, 0, 60);
    Bench bench(model);
    Keeper keeper;
    keeper.answer = [&](const Ids & drafted) {
        // The session's committed tokens are those of its cache and the pending ones.
        const size_t n = bench.session.cached().size() + bench.session.pending().size() - prompt.size();
        const size_t at = n + drafted.size();
        const bool on_path = std::equal(drafted.begin(), drafted.end(), plain.begin() + static_cast<ptrdiff_t>(n));
        return on_path && at < plain.size() ? Keeper::Answer{{plain[at]}} : Keeper::Answer{};
    };
    Speculation speculation = mixed(model, 0, 6, 0.0f);
    speculation.guide = &Keeper::ask;
    speculation.guide_data = &keeper;
    const Generation g = generate(bench, prompt, speculation, 60);
    CHECK_EQ(g.tokens, plain);
    for (size_t i = 1; i + 1 < g.passes.size(); ++i) {
        CHECK_EQ(g.passes[i].n_accepted, 5);
        CHECK_EQ(g.passes[i].n_drafted, 5);
    }
    CHECK_EQ(g.passes.size(), size_t{1 + 10}); // 59 tokens behind the first, six a pass
}

// Keepers that know nothing of what the model says, on all trees and memories.
void tokens_are_plain_decodings() {
    std::mt19937 rng(11);
    for (int round = 0; round < 120; ++round) {
        const Scope scope("round " + std::to_string(round));
        MockLlama model;
        model.rank_of_truth = [](int32_t, size_t at) { return static_cast<int32_t>(at % 3); };
        const int kind = below(rng, 4);
        if (kind == 3) {
            model.kind = below(rng, 2) == 0 ? MockMemory::snapshots : MockMemory::copies;
            model.n_snapshots = model.kind == MockMemory::snapshots ? 8 : 0;
        }
        Keeper keeper;
        const int32_t share = below(rng, 5);
        keeper.answer = [&](const Ids &) {
            Keeper::Answer answer;
            for (int32_t token = 0; token < model.n_vocab; ++token) {
                if (below(rng, 4) < share) {
                    answer.allowed.insert(token);
                }
            }
            answer.forced = below(rng, model.n_vocab + 2) - 1;
            answer.knows = below(rng, 4) != 0;
            return answer;
        };
        Speculation speculation = kind == 0   ? speculate(model, 2, {3, 2}, 18)
                                  : kind == 1 ? speculate(model, 2, {}, 18)
                                              : mixed(model, below(rng, 2), 12, 0.0f);
        speculation.guide = &Keeper::ask;
        speculation.guide_data = &keeper;
        const Ids prompt = random_tokens(rng, 1 + below(rng, 12), model.n_vocab);
        const uint64_t seed = below(rng, 3);
        Bench bench(model);
        for (int i = 0; i < 2; ++i) {
            CHECK_EQ(generate(bench, prompt, speculation, 40, seed).tokens, plain_decode(model, prompt, seed, 40));
        }
        CHECK(!keeper.asked.empty());
        // A generation without a keeper asks the last one's no more.
        keeper.asked.clear();
        speculation.guide = nullptr;
        generate(bench, prompt, speculation, 10, seed);
        CHECK(keeper.asked.empty());
    }
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("what is forbidden", what_is_forbidden_gets_no_row);
    run("what is forced", what_is_forced_is_certain);
    run("keepers that err", a_keeper_that_errs_is_survived);
    run("places", places_remember);
    run("certain drafts", certain_drafts_save_passes);
    run("plain decoding's tokens", tokens_are_plain_decodings);
    return finish();
}
