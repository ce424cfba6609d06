// Sessions against plain decoding: whatever the settings, the committed tokens are those of decoding one row at
// a time, and after every pass the KV cache holds exactly what it should (session_fixture.h checks that).
#include "error.h"
#include "session_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

struct Setting {
    MockLlama model;
    Speculation speculation;
    int32_t max_tokens = 0;
    uint64_t seed = 0;
    std::string text;
};

// Masks of mixed quality: mostly among the first ranks, sometimes never.
void mix_masks(MockLlama & model, uint32_t salt) {
    model.rank_of_truth = [salt](int32_t pos, size_t mask) {
        std::mt19937 rng(salt + 31 * static_cast<uint32_t>(pos) + 7 * static_cast<uint32_t>(mask));
        return below(rng, 6) - 1;
    };
    const float slope = 0.05f * static_cast<float>(1 + salt % 20);
    model.logit_of_rank = [slope](int32_t rank) { return -slope * static_cast<float>(rank); };
}

Setting random_setting(std::mt19937 & rng) {
    Setting s;
    const int32_t k = below(rng, 5);
    Ids widths;
    if (below(rng, 2) == 0) {
        for (int32_t d = below(rng, k + 1); d > 0; --d) {
            widths.push_back(1 + below(rng, 5));
        }
    }
    const int32_t block = (1 + k) * (1 + below(rng, 10)) + below(rng, 1 + k);
    s.model.resize(8 + below(rng, 100));
    s.model.n_ubatch = block + below(rng, 20);
    s.model.n_batch = s.model.n_ubatch + k;              // room for accepted tokens that are decoded again
    s.model.n_seq_max = block / (1 + k) + below(rng, 3); // one for each node's masks
    s.model.embedding_scale = below(rng, 3) == 0 ? 8.0f : 1.0f;
    if (below(rng, 3) == 0) {
        s.model.eog = {below(rng, s.model.n_vocab)};
    }
    mix_masks(s.model, rng());
    s.speculation = speculate(s.model, k, widths, block);
    if (below(rng, 2) == 0) {
        s.speculation = mixed(s.model, k, block, 0.01f * static_cast<float>(below(rng, 60)));
        s.speculation.refine = below(rng, 4) == 0;
        s.model.n_seq_max = 1 + below(rng, block);
        s.model.n_batch = s.model.n_ubatch = block;
        s.model.n_remembered = below(rng, 3);
    }
    s.speculation.prune = below(rng, 2) == 0;
    s.speculation.update = below(rng, 2) == 0 ? 0.0f : 0.1f;
    s.max_tokens = 1 + below(rng, 60);
    s.seed = below(rng, 2) == 0 ? 0 : 1 + below(rng, 1000);
    s.text = "tree " + std::to_string(s.speculation.tree) + ", k " + std::to_string(k) + ", widths " + show(widths) +
             ", block " + std::to_string(block) + ", n_ctx " + std::to_string(s.model.n_ctx) + ", max_tokens " +
             std::to_string(s.max_tokens) + ", seed " + std::to_string(s.seed);
    return s;
}

// Several turns in one session; from the second on the prompt shares a prefix with what is cached.
void as_plain_decoding() {
    std::mt19937 rng(1);
    int64_t n_tokens = 0;
    int64_t n_passes = 0;
    int64_t n_again = 0;
    int64_t n_deep = 0;
    int n_full = 0;
    for (int round = 0; round < 240; ++round) {
        const Setting s = random_setting(rng);
        const Scope scope("round " + std::to_string(round) + ": " + s.text);
        Bench bench(s.model);
        for (int turn = 0; turn < 3; ++turn) {
            Ids prompt = bench.session.cached();
            prompt.resize(below(rng, static_cast<int32_t>(prompt.size()) + 1));
            const int32_t room = static_cast<int32_t>(s.model.n_ctx) - 1 - static_cast<int32_t>(prompt.size());
            const Ids fresh = random_tokens(rng, room > 0 ? 1 + below(rng, std::min(room, 40)) : 0, s.model.n_vocab);
            prompt.insert(prompt.end(), fresh.begin(), fresh.end());
            const Generation g = generate(bench, prompt, s.speculation, s.max_tokens, s.seed, below(rng, 3) > 0);
            CHECK_EQ(g.tokens, plain_decode(s.model, prompt, s.seed, s.max_tokens));
            n_full += prompt.size() + g.tokens.size() == s.model.n_ctx;
            n_tokens += static_cast<int64_t>(g.tokens.size());
            n_passes += static_cast<int64_t>(g.passes.size());
            for (const Pass & pass : g.passes) {
                n_again += pass.n_again;
                n_deep += pass.n_accepted > MP_MAX_MASKS;
            }
        }
    }
    // The settings do reach what they are for: drafts accepted, on and off the spine, and full contexts.
    CHECK(n_tokens > n_passes);
    CHECK(n_again > 200);
    CHECK(n_deep > 20);
    CHECK(n_full > 20);
}

// The context fills to its last cell with blocks that no longer fit.
void full_contexts() {
    std::mt19937 rng(2);
    for (uint32_t n_ctx = 3; n_ctx < 40; ++n_ctx) {
        const Scope scope("n_ctx " + std::to_string(n_ctx));
        MockLlama model;
        model.resize(n_ctx);
        mix_masks(model, n_ctx);
        Bench bench(model);
        const Ids prompt = random_tokens(rng, 1 + below(rng, static_cast<int32_t>(n_ctx) - 1), model.n_vocab);
        for (const Speculation & speculation : {speculate(model, 2, {3, 2}, 30), speculate(model, 2, {}, 30),
                                                mixed(model, 2, 30, 0.0f), mixed(model, 0, 30, 0.0f)}) {
            const Generation g = generate(bench, prompt, speculation, 1000);
            CHECK_EQ(g.tokens.size(), n_ctx - prompt.size());
            CHECK_EQ(g.tokens, plain_decode(model, prompt, 0, 1000));
            CHECK_ERROR(MP_ERROR_ARGUMENT, "ended", bench.session.step());
        }
    }
}

void plain_sessions() {
    MockLlama model;
    MockLlama llama = model.fresh();
    Session session(llama.context(), nullptr, 1.0f);
    CHECK_EQ(session.n_embd(), size_t{0});
    const Ids prompt{3, 1, 4, 1, 5};
    MockSampler sampler;
    CHECK_ERROR(MP_ERROR_ARGUMENT, "no embeddings",
                session.begin(prompt, sampler.get(), speculate(model, 1, {}, 4), 9, false));
    session.begin(prompt, sampler.get(), Speculation(), 9, false);
    Ids tokens = Pass(session.prefill()).tokens;
    while (tokens.size() < 9) {
        const Pass pass = session.step();
        CHECK_EQ(pass.n_rows, 1);
        CHECK_EQ(pass.n_kv_scans, 0); // nothing to clean up after one row
        tokens.insert(tokens.end(), pass.tokens.begin(), pass.tokens.end());
        check_kv(llama, session);
    }
    CHECK_EQ(tokens, plain_decode(model, prompt, 0, 9));
    for (const std::vector<MockRow> & batch : llama.history) {
        CHECK(batch[0].embd.empty()); // token ids, as plain llama.cpp decodes them
    }
}

// A prompt that the cache begins with is decoded from where they part; the last token always.
void prompt_reuse() {
    const MockLlama model;
    Bench bench(model);
    const Speculation speculation = speculate(model, 2, {3, 2}, 18);
    const Ids prompt{3, 1, 4, 1, 5, 9, 2, 6};
    const auto turn = [&](const Ids & tokens, bool reuse, size_t n_reused) {
        const size_t n_before = bench.llama.history.size();
        const Generation g = generate(bench, tokens, speculation, 8, 0, reuse);
        CHECK_EQ(g.n_reused, n_reused);
        CHECK_EQ(g.passes[0].n_rows, static_cast<int32_t>(tokens.size() - n_reused));
        CHECK_EQ(bench.llama.history[n_before][0].pos, static_cast<int32_t>(n_reused));
        CHECK_EQ(g.tokens, plain_decode(model, tokens, 0, 8));
        return g;
    };
    const Generation first = turn(prompt, true, 0);
    turn(prompt, true, prompt.size() - 1); // all of it is cached, the last token is decoded for its logits
    turn(prompt, false, 0);
    const Ids cached = bench.session.cached();
    CHECK(cached.size() > prompt.size());
    Ids longer = cached;
    longer.insert(longer.end(), {7, 7, 7});
    turn(longer, true, cached.size());
    Ids other = prompt;
    other[3] = 2;
    turn(other, true, 3);
    turn({2, 7}, true, 0); // nothing in common
    turn({2}, true, 0);
}

void memory_that_cannot_be_cut() {
    const MockLlama model;
    Bench bench(model);
    bench.llama.can_cut = false;
    Ids prompt{3, 1, 4};
    Generation g = generate(bench, prompt, Speculation(), 5, 0, true);
    prompt = bench.session.cached();
    prompt.push_back(8);
    g = generate(bench, prompt, Speculation(), 5, 0, true); // grows, so no cut is needed
    CHECK_EQ(g.n_reused, prompt.size() - 1);
    g = generate(bench, {3, 1, 9}, Speculation(), 5, 0, true);
    CHECK_EQ(g.n_reused, size_t{0});
    CHECK_EQ(g.tokens, plain_decode(model, {3, 1, 9}, 0, 5));
}

void reset_forgets() {
    const MockLlama model;
    Bench bench(model);
    generate(bench, {3, 1, 4}, speculate(model, 1, {4}, 10), 9);
    CHECK(bench.session.n_sequences() > 1);
    bench.session.reset();
    CHECK_EQ(bench.session.n_sequences(), 1);
    CHECK(bench.session.cached().empty() && bench.session.pending().empty());
    check_kv(bench.llama, bench.session);
    CHECK_ERROR(MP_ERROR_ARGUMENT, "", bench.session.step());
    CHECK_EQ(generate(bench, {3, 1, 4}, speculate(model, 1, {4}, 10), 9, 0, true).n_reused, size_t{0});
}

// A KV cache as a saved state brings it: filled by another session, in cells of sequence 0 alone.
void restored() {
    const MockLlama model;
    const Speculation speculation = speculate(model, 1, {4}, 10);
    Bench first(model);
    Ids text{3, 1, 4, 1, 5};
    const Generation before = generate(first, text, speculation, 9);
    CHECK(first.session.n_sequences() > 1);
    const Ids cached = first.session.cached();

    Bench second(model);
    second.llama.cells = first.llama.cells;
    second.llama.head = first.llama.head;
    for (MockCell & cell : second.llama.cells) {
        cell.sequences = cell.pos < 0 ? 0 : 1;
    }
    CHECK_ERROR(MP_ERROR_ARGUMENT, "not in the vocabulary", second.session.restore({model.n_vocab}));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "cannot be in a context", second.session.restore(Ids(model.n_ctx + 1)));
    second.session.restore(cached);
    check_kv(second.llama, second.session);
    CHECK_ERROR(MP_ERROR_ARGUMENT, "reset the session first", second.session.restore(cached));
    text.insert(text.end(), before.tokens.begin(), before.tokens.end());
    text.push_back(7);
    const Generation g = generate(second, text, speculation, 9, 0, true);
    CHECK_EQ(g.n_reused, cached.size());
    CHECK_EQ(g.tokens, plain_decode(model, text, 0, 9));
}

void other_scale() {
    MockLlama model;
    Bench bench(model);
    bench.llama.embedding_scale = 16.0f; // found out after the session was made
    bench.session.set_embedding_scale(16.0f);
    const Generation g = generate(bench, {3, 1, 4}, speculate(model, 2, {}, 18), 12);
    CHECK_EQ(g.tokens, plain_decode(model, {3, 1, 4}, 0, 12));
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("as plain decoding", as_plain_decoding);
    run("full contexts", full_contexts);
    run("plain sessions", plain_sessions);
    run("prompt reuse", prompt_reuse);
    run("memory that cannot be cut", memory_that_cannot_be_cut);
    run("reset forgets", reset_forgets);
    run("restored", restored);
    run("other scale", other_scale);
    return finish();
}
