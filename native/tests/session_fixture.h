// What the session tests share: a session over a mock, plain decoding to compare with, and a driver that holds
// every pass to the session's invariants.
#pragma once

#include "check.h"
#include "embeddings.h"
#include "mock_llama.h"
#include "session.h"

#include <algorithm>

namespace mp::test {

using Ids = std::vector<int32_t>;

inline Ids random_tokens(std::mt19937 & rng, size_t n, int32_t n_vocab) {
    Ids tokens(n);
    for (int32_t & token : tokens) {
        token = below(rng, n_vocab);
    }
    return tokens;
}

// The session keeps pointers to its neighbours here, so a bench stays where it is.
struct Bench {
    MockLlama llama;
    MockGguf file;
    Embeddings embeddings;
    Session session;

    explicit Bench(const MockLlama & model)
        : llama(model.fresh()), file(llama), embeddings({file.path()}),
          session(llama.context(), &embeddings, llama.embedding_scale) {}
    Bench(const Bench &) = delete;
    Bench & operator=(const Bench &) = delete;
};

// Start values of masks that are no token's row and tell which mask they are.
inline std::vector<float> mask_start(const MockLlama & llama, int32_t n_masks) {
    std::vector<float> masks;
    for (int32_t i = 0; i < n_masks; ++i) {
        for (int32_t j = 0; j < llama.n_embd; ++j) {
            masks.push_back(1000.0f * static_cast<float>(i + 1) + static_cast<float>(j));
        }
    }
    return masks;
}

// A tree of the given widths, or a dynamic one without; plain decoding without masks.
inline Speculation speculate(const MockLlama & llama, int32_t n_masks, const Ids & widths, int32_t block) {
    Speculation speculation;
    speculation.tree = n_masks == 0 ? MP_TREE_NONE : widths.empty() ? MP_TREE_DYNAMIC : MP_TREE_STATIC;
    speculation.n_masks = n_masks;
    speculation.widths = widths;
    speculation.block = block;
    speculation.prune = false;
    speculation.masks = mask_start(llama, n_masks);
    return speculation;
}

// A tree from all sources, for a machine on which a further row costs that much of the first.
inline Speculation mixed(const MockLlama & llama, int32_t n_masks, int32_t block, float row_cost) {
    Speculation speculation = speculate(llama, n_masks, {}, block);
    speculation.tree = MP_TREE_MIXED;
    speculation.sources = MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY | MP_SOURCE_HISTORY;
    for (int32_t i = 0; i < block; ++i) {
        speculation.cost.push_back(1.0f + row_cost * static_cast<float>(i));
    }
    return speculation;
}

// One row at a time, straight on the mocked functions.
inline Ids plain_decode(const MockLlama & model, const Ids & prompt, uint64_t seed, int32_t max_tokens) {
    MockLlama llama = model.fresh();
    MockSampler sampler;
    sampler.seed = seed;
    const LlamaApi api = mock_api();
    Ids sequence = prompt;
    for (size_t i = 0; i < sequence.size(); ++i) {
        int32_t pos = static_cast<int32_t>(i);
        int32_t id = 0;
        int32_t * ids = &id;
        int32_t n_ids = 1;
        int8_t output = 1;
        CHECK_EQ(api.llama_decode(llama.context(), llama_batch{1, &sequence[i], nullptr, &pos, &n_ids, &ids, &output}),
                 0);
        if (i + 1 < prompt.size()) {
            continue;
        }
        if (i + 1 - prompt.size() == static_cast<size_t>(max_tokens) || i + 1 == llama.n_ctx ||
            (i >= prompt.size() && llama.eog.count(sequence[i]) != 0)) {
            break;
        }
        const float * logits = api.llama_get_logits_ith(llama.context(), 0);
        std::vector<llama_token_data> candidates;
        for (int32_t token = 0; token < llama.n_vocab; ++token) {
            candidates.push_back({token, logits[token], 0.0f});
        }
        llama_token_data_array all{candidates.data(), candidates.size(), -1, false};
        api.llama_sampler_apply(sampler.get(), &all);
        sequence.push_back(static_cast<int32_t>(all.selected));
        api.llama_sampler_accept(sampler.get(), sequence.back());
    }
    return Ids(sequence.begin() + static_cast<std::ptrdiff_t>(prompt.size()), sequence.end());
}

// The KV cache holds these tokens and nothing else: one cell a token, in order of position, each with the sequence ids
// 0..n-1, and each computed from exactly the tokens before it.
inline void check_kv(const MockLlama & llama, const Ids & cached, int32_t n_sequences) {
    CHECK_EQ(llama.n_used(), cached.size());
    std::bitset<256> every;
    for (int32_t s = 0; s < n_sequences; ++s) {
        every.set(s);
    }
    MockChain chain;
    for (const MockCell & cell : llama.cells) {
        if (cell.pos < 0 || static_cast<size_t>(chain.n) >= cached.size()) {
            continue;
        }
        CHECK_EQ(cell.pos, chain.n);
        CHECK_EQ(cell.sequences, every);
        CHECK_EQ(cell.token, cached[chain.n]);
        CHECK_EQ(cell.state, chain.push(cached[chain.n]));
    }
    CHECK_EQ(llama.violations, std::vector<std::string>());
    CHECK_EQ(llama.n_odd_masks, size_t{0});
}

inline void check_kv(const MockLlama & llama, const Session & session) {
    check_kv(llama, session.cached(), session.n_sequences());
}

// A pass with tokens of its own, which outlive the next one's.
struct Pass : mp_pass {
    Ids tokens;
    Pass(const mp_pass & pass) : mp_pass(pass), tokens(pass.tokens, pass.tokens + pass.n_tokens) {}
};

struct Generation {
    size_t n_reused = 0;
    Ids tokens;
    std::vector<Pass> passes; // of the prompt too
    MockSampler sampler;
    bool end = false;
};

// Holds what a pass reports to what the mock saw, and the session's state to the tokens committed so far.
inline void check_pass(const Bench & bench, const Pass & pass, const Ids & prompt, const Ids & tokens,
                       int32_t n_scans) {
    CHECK_EQ(pass.n_rows, static_cast<int32_t>(bench.llama.rows.size()));
    CHECK_EQ(pass.n_kv_scans, bench.llama.n_scans - n_scans);
    Ids all = bench.session.cached();
    all.insert(all.end(), bench.session.pending().begin(), bench.session.pending().end());
    Ids expected = prompt;
    expected.insert(expected.end(), tokens.begin(), tokens.end());
    CHECK_EQ(all, expected);
    check_kv(bench.llama, bench.session);
}

// Generates until an end token or max_tokens or a full context.
inline Generation generate(Bench & bench, const Ids & prompt, const Speculation & speculation, int32_t max_tokens,
                           uint64_t seed = 0, bool reuse = false) {
    Generation g;
    g.sampler.seed = seed;
    Session & session = bench.session;
    const size_t n_most = std::min<size_t>(max_tokens, bench.llama.n_ctx - prompt.size());
    g.n_reused = session.begin(prompt, g.sampler.get(), speculation, max_tokens, reuse);
    CHECK_EQ(session.cached(), Ids(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(g.n_reused)));
    check_kv(bench.llama, session);
    while (!g.end && g.tokens.size() < n_most) {
        const bool in_prompt = g.tokens.empty();
        const int32_t n_scans = bench.llama.n_scans;
        const int32_t n_again = static_cast<int32_t>(session.pending().size()) - 1;
        const Pass pass = in_prompt ? session.prefill() : session.step();
        g.passes.push_back(pass);
        g.tokens.insert(g.tokens.end(), pass.tokens.begin(), pass.tokens.end());
        g.end = pass.end;
        check_pass(bench, pass, prompt, g.tokens, n_scans);
        if (in_prompt) {
            CHECK_EQ(pass.n_accepted + pass.n_drafted + pass.n_again, 0);
            CHECK(pass.tokens.size() <= 1);
        } else {
            const int32_t rows = pass.n_rows - pass.n_again;
            CHECK_EQ(static_cast<int32_t>(pass.tokens.size()), pass.n_accepted + 1);
            CHECK_EQ(pass.n_again, n_again);
            CHECK(pass.n_accepted <= pass.n_drafted);
            if (speculation.tree == MP_TREE_MIXED) {
                CHECK(pass.n_rows <= std::max(speculation.block, 1 + pass.n_again)); // rows decoded again included
                CHECK((rows - 1 - pass.n_drafted) % std::max(1, speculation.n_masks) == 0);
            } else {
                CHECK(pass.n_accepted <= speculation.n_masks);
                CHECK(rows == (1 + pass.n_drafted) * (1 + speculation.n_masks) || rows == 1);
                CHECK(rows <= std::max(1, speculation.block));
            }
        }
        if (g.passes.size() > prompt.size() + n_most) {
            fail(__FILE__, __LINE__, "the generation does not advance");
            break;
        }
    }
    // One draw per committed token, in order.
    CHECK_EQ(g.sampler.draws.size(), g.tokens.size());
    for (size_t i = 0; i < std::min(g.tokens.size(), g.sampler.draws.size()); ++i) {
        CHECK_EQ(g.sampler.draws[i].token, g.tokens[i]);
        CHECK_EQ(g.sampler.draws[i].pos, static_cast<int32_t>(prompt.size() + i) - 1);
    }
    return g;
}

} // namespace mp::test
