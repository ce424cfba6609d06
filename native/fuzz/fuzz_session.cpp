// Sessions over a mock of any size: any settings, generations that are broken off, reset or fail in any call, logits of
// masks that are not numbers, KV caches that are saved and restored. Whatever is committed is what plain decoding
// gives; the KV cache holds what the session says; what cannot be done is refused.
#include "error.h"
#include "fuzz.h"
#include "keeper.h"
#include "maskprobe.h"
#include "model.h"
#include "session_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

// New tokens, text that repeats, or what the cache holds and more; now and then too many or none.
Ids any_prompt(Input & in, const MockLlama & model, const Session & session) {
    const int32_t n = in.below(static_cast<int32_t>(model.n_ctx) + (in.rarely(8) ? 3 : 0));
    Ids prompt;
    if (in.coin()) {
        prompt = session.cached();
        prompt.resize(prompt.size() - std::min<size_t>(prompt.size(), in.below(4)));
    }
    const Ids part = in.tokens(1 + in.below(6), model.n_vocab);
    while (static_cast<int32_t>(prompt.size()) < n) {
        prompt.push_back(in.rarely(8) ? in.below(model.n_vocab) : part[prompt.size() % part.size()]);
    }
    return prompt;
}

void check_refuses(Session & session) {
    CHECK_ERROR(MP_ERROR_ARGUMENT, "", session.step());
    CHECK_ERROR(MP_ERROR_ARGUMENT, "", session.prefill());
}

void check_rows(const Pass & pass, const Bench & bench, const Speculation & speculation, bool in_prompt) {
    CHECK_EQ(pass.n_rows, static_cast<int32_t>(bench.llama.rows.size()));
    if (in_prompt || speculation.tree == MP_TREE_NONE) {
        CHECK_EQ(pass.n_drafted, 0);
        return;
    }
    CHECK_EQ(static_cast<int32_t>(pass.tokens.size()), pass.n_accepted + 1);
    CHECK(pass.n_accepted <= pass.n_drafted);
    CHECK(pass.n_rows <= static_cast<int32_t>(bench.llama.n_ubatch));
    CHECK(pass.n_rows <= std::max(speculation.block, 1) + pass.n_again);
    CHECK(std::isfinite(pass.expected) && std::isfinite(pass.price) && std::isfinite(pass.probe_logp));
}

// The C functions of a state, on a session of their own over the same context.
void check_abi(const Bench & bench, llama_context * ctx, const Ids & tokens) {
    mp_session * session = mp_session_init(ctx, nullptr, 1.0f);
    if (!CHECK(session != nullptr)) {
        return;
    }
    CHECK_EQ(mp_session_n_cached(session), size_t{0});
    CHECK_EQ(mp_session_restore(session, nullptr, tokens.size()), static_cast<int>(MP_ERROR_ARGUMENT));
    const int32_t none = 0;
    CHECK_EQ(mp_session_restore(session, tokens.empty() ? &none : tokens.data(), tokens.size()),
             static_cast<int>(MP_OK));
    Ids cached(mp_session_n_cached(session)); // exactly as large as needed
    if (!cached.empty()) {
        CHECK_EQ(mp_session_cached(session, cached.data()), static_cast<int>(MP_OK));
        CHECK_EQ(mp_session_restore(session, &none, 1), static_cast<int>(MP_ERROR_ARGUMENT));
    }
    CHECK_EQ(cached, tokens);
    CHECK_EQ(mp_session_cached(session, nullptr), static_cast<int>(MP_ERROR_ARGUMENT));
    mp_session_free(session);
    check_kv(bench.llama, bench.session);
}

// Puts the KV cache that the session has, or its beginning, back as a saved state does: from the first cell on, in
// cells of sequence 0 alone.
void restore_any(Input & in, Bench & bench) {
    Session & session = bench.session;
    MockLlama & llama = bench.llama;
    Ids tokens = session.cached();
    tokens.resize(tokens.size() - std::min<size_t>(tokens.size(), in.rarely(3) ? in.below(8) : 0));
    const std::vector<MockCell> before = llama.cells;
    if (!session.cached().empty()) {
        CHECK_ERROR(MP_ERROR_ARGUMENT, "reset the session first", session.restore(tokens));
        check_kv(llama, session);
    }
    session.reset();
    llama.head = 0;
    for (const MockCell & cell : before) {
        if (cell.pos >= 0 && static_cast<size_t>(cell.pos) < tokens.size()) {
            llama.cells[llama.head] = cell;
            llama.cells[llama.head++].sequences = 1;
        }
    }
    if (in.rarely(4)) {
        Ids wrong = tokens;
        wrong.push_back(in.coin() ? -1 - in.below(9) : llama.n_vocab + in.below(9));
        wrong.resize(wrong.size() + (in.coin() ? llama.n_ctx : 0));
        CHECK_ERROR(MP_ERROR_ARGUMENT, "", session.restore(wrong));
        CHECK(session.cached().empty());
    }
    session.restore(tokens);
    check_kv(llama, session);
    check_refuses(session);
    check_abi(bench, llama.context(), tokens);
}

// What may come between two passes. False if the generation ends with it.
bool interrupt_any(Input & in, Bench & bench) {
    Session & session = bench.session;
    switch (in.done() ? 0 : in.below(24)) {
    case 20: restore_any(in, bench); return false;
    case 21: session.forget(); return true; // what was learned, not the generation
    case 22:
        session.reset();
        check_kv(bench.llama, session);
        check_refuses(session);
        return false;
    case 23: return false; // broken off
    default: return true;
    }
}

void generate_any(Input & in, Bench & bench) {
    Session & session = bench.session;
    const Ids prompt = any_prompt(in, bench.llama, session);
    AnyKeeper keeper(in, bench.llama.n_vocab);
    const Speculation speculation = any_speculation(in, bench.llama, keeper);
    const int32_t max_tokens = 1 + in.below(30);
    MockSampler sampler;
    sampler.seed = in.below(3);
    const bool greedy = sampler.seed == 0 && in.coin();
    session.report_logprobs(in.rarely(4) ? in.below(bench.llama.n_vocab + 1) : -1);
    add_faults(in, bench.llama);
    try {
        session.begin(prompt, greedy ? nullptr : sampler.get(), speculation, max_tokens, in.coin());
    } catch (const Error & error) {
        CHECK_EQ(static_cast<int>(error.status), static_cast<int>(MP_ERROR_ARGUMENT));
        check_kv(bench.llama, session);
        return;
    }
    const Ids plain = plain_decode(bench.llama, prompt, sampler.seed, max_tokens);
    Ids tokens;
    while (tokens.size() < plain.size()) {
        if (!interrupt_any(in, bench)) {
            return;
        }
        const Ids cached = session.cached();
        const bool in_prompt = tokens.empty();
        try {
            const Pass pass = in_prompt ? session.prefill() : session.step();
            tokens.insert(tokens.end(), pass.tokens.begin(), pass.tokens.end());
            check_rows(pass, bench, speculation, in_prompt);
        } catch (const Error & error) {
            CHECK_EQ(static_cast<int>(error.status), static_cast<int>(MP_ERROR_DECODE));
            CHECK(!bench.llama.decode_codes.empty() || !bench.llama.null_logits.empty());
            // A recurrent state that a failed pass has changed is lost; in a copy of it nothing is.
            const bool kept = bench.llama.kind == MockMemory::cells || session.cached() == cached;
            CHECK_EQ(session.cached(), kept ? cached : Ids());
            check_kv(bench.llama, session);
            check_refuses(session);
            return;
        }
        check_kv(bench.llama, session);
        if (!CHECK(tokens.size() <= plain.size() && std::equal(tokens.begin(), tokens.end(), plain.begin())) ||
            n_failures > 0) {
            return;
        }
    }
    CHECK_EQ(tokens, plain);
    CHECK(greedy || sampler.draws.size() == tokens.size());
    check_refuses(session);
}

} // namespace

void fuzz_begin() { bind_llama_api(mock_api()); }

void fuzz_one(Input & in) {
    Bench bench(any_model(in));
    if (in.coin()) {
        const size_t n = static_cast<size_t>(bench.llama.n_vocab) * MP_ADJACENCY_WIDTH;
        const Ids tokens = in.tokens(static_cast<int32_t>(std::min<size_t>(n, 40)), bench.llama.n_vocab + 1);
        Ids table(n);
        std::vector<float> logps(n);
        for (size_t i = 0; i < n; ++i) {
            table[i] = tokens[i * 7 % tokens.size()] - 1; // -1: the list ends
            logps[i] = i % 11 == 0 ? in.any_float() : -0.5f;
        }
        bench.session.set_adjacency(table.data(), logps.data());
    }
    for (int i = 0; i < 6 && n_failures == 0; ++i) {
        generate_any(in, bench);
    }
}
