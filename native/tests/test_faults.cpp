// Failures inside a pass: llama_decode failing with each of its codes and logits that are missing, at every call
// of a generation. The error says so, the KV cache is back at the committed tokens, the session refuses to go
// on, and the next generation is right.
#include "error.h"
#include "session_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

const Ids prompt{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9};
constexpr int32_t max_tokens = 24;

// Accepts on the spine, off it and not at all, so that faults meet every kind of pass.
MockLlama mixed_model() {
    MockLlama model;
    model.n_batch = 21; // the prompt alone fits; the longer ones below come in two chunks
    model.rank_of_truth = [](int32_t pos, size_t mask) { return (pos * 7 + static_cast<int32_t>(mask) * 3) % 4 - 1; };
    return model;
}

Speculation dynamic_settings(const MockLlama & model) {
    Speculation speculation = speculate(model, 2, {}, 18);
    speculation.update = 0.1f;
    return speculation;
}

Speculation static_settings(const MockLlama & model) {
    Speculation speculation = speculate(model, 2, {3, 2}, 18);
    speculation.update = 0.1f;
    return speculation;
}

Speculation mixed_settings(const MockLlama & model) {
    Speculation speculation = mixed(model, 2, 18, 0.0f);
    speculation.update = 0.1f;
    return speculation;
}

// After a failure: the committed tokens as they were before the call, and nothing goes on without a new begin.
void check_after_failure(Bench & bench, const Ids & cached) {
    CHECK_EQ(bench.session.cached(), cached);
    check_kv(bench.llama, bench.session);
    CHECK_ERROR(MP_ERROR_ARGUMENT, "", bench.session.step());
    CHECK_ERROR(MP_ERROR_ARGUMENT, "", bench.session.prefill());
}

// A new generation, from the same prompt or from what the cache holds plus two tokens.
void check_next_generation(Bench & bench, const Speculation & settings, bool same_prompt) {
    Ids next = prompt;
    if (!same_prompt) {
        next = bench.session.cached();
        next.insert(next.end(), {7, 8});
    }
    const size_t n_cached = bench.session.cached().size();
    const Generation g = generate(bench, next, settings, 12, 0, true);
    CHECK(same_prompt || g.n_reused == n_cached);
    CHECK_EQ(g.tokens, plain_decode(bench.llama, next, 0, 12));
}

struct Outcome {
    Ids tokens; // committed before the failure
    bool failed = false;
};

// Runs until the failure or the end.
Outcome run_into_failure(Bench & bench, const Speculation & settings, MockSampler & sampler, const std::string & says,
                         mp_status status = MP_ERROR_DECODE) {
    Outcome outcome;
    bench.session.begin(prompt, sampler.get(), settings, max_tokens, false);
    while (outcome.tokens.size() < static_cast<size_t>(max_tokens)) {
        const Ids cached = bench.session.cached();
        try {
            const Pass pass = outcome.tokens.empty() ? bench.session.prefill() : bench.session.step();
            outcome.tokens.insert(outcome.tokens.end(), pass.tokens.begin(), pass.tokens.end());
        } catch (const Error & error) {
            CHECK_EQ(static_cast<int>(error.status), static_cast<int>(status));
            if (!CHECK(std::string(error.what()).find(says) != std::string::npos)) {
                std::cerr << "    the message: " << error.what() << "\n";
            }
            outcome.failed = true;
            check_after_failure(bench, cached);
            break;
        }
    }
    return outcome;
}

void decode_fails(const MockLlama & model, const Speculation & settings) {
    const Ids plain = plain_decode(model, prompt, 0, max_tokens);
    const std::vector<std::pair<int32_t, std::string>> codes{
        {1, "no room"}, {2, "aborted"}, {-1, "invalid (-1)"}, {-2, "(-2)"}, {-3, "(-3)"}};
    for (const auto & [code, says] : codes) {
        size_t call = 0;
        for (bool failed = true; failed; ++call) {
            const Scope scope("code " + std::to_string(code) + " at call " + std::to_string(call));
            Bench bench(model);
            bench.llama.decode_codes[call] = code;
            MockSampler sampler;
            const Outcome outcome = run_into_failure(bench, settings, sampler, says);
            failed = outcome.failed;
            CHECK_EQ(outcome.tokens,
                     Ids(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(outcome.tokens.size())));
            CHECK_EQ(sampler.draws.size(), outcome.tokens.size()); // a failed decode draws nothing
            if (failed) {
                check_next_generation(bench, settings, call % 2 == 0);
            }
        }
        CHECK(call > 8);
        std::cout << call - 1 << " calls failed with " << code << "\n";
    }
}

// A row that must be sampled without logits is an error; a mask without them only costs its drafts. The logits of a
// committed token are asked for once: every look waits for the devices.
void logits_are_missing(const MockLlama & model, const Speculation & settings) {
    const Ids plain = plain_decode(model, prompt, 0, max_tokens);
    size_t n_failed = 0;
    size_t n_masks = 0;
    for (size_t call = 0;; ++call) {
        const Scope scope("logits call " + std::to_string(call));
        Bench bench(model);
        bench.llama.null_logits = {call};
        MockSampler sampler;
        const Outcome outcome = run_into_failure(bench, settings, sampler, "no logits");
        CHECK_EQ(outcome.tokens,
                 Ids(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(outcome.tokens.size())));
        if (bench.llama.n_logits_calls <= call) {
            break;
        }
        CHECK_EQ(outcome.failed, !bench.llama.null_was_a_mask);
        n_failed += outcome.failed;
        n_masks += bench.llama.null_was_a_mask;
        check_next_generation(bench, settings, call % 2 == 0);
    }
    CHECK_EQ(n_failed, static_cast<size_t>(max_tokens));
    std::cout << n_failed << " tokens and " << n_masks << " masks had no logits\n";
    CHECK(settings.n_masks == 0 || n_masks > 10);
}

// A chain that rules every token out, from each draw on in turn.
void nothing_is_left_to_draw(const MockLlama & model, const Speculation & settings) {
    const Ids plain = plain_decode(model, prompt, 0, max_tokens);
    for (size_t n_allowed = 0; n_allowed < plain.size(); ++n_allowed) {
        const Scope scope("after " + std::to_string(n_allowed) + " draws");
        Bench bench(model);
        MockSampler sampler;
        sampler.n_allowed = n_allowed;
        const Outcome outcome = run_into_failure(bench, settings, sampler, "no token", MP_ERROR_SAMPLING);
        CHECK(outcome.failed);
        CHECK_EQ(sampler.draws.size(), n_allowed); // what was ruled out is not accepted
        CHECK(outcome.tokens.size() <= n_allowed);
        CHECK_EQ(outcome.tokens,
                 Ids(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(outcome.tokens.size())));
        check_next_generation(bench, settings, n_allowed % 2 == 0);
    }
}

void prompt_fails_in_its_second_chunk() {
    const MockLlama model = mixed_model();
    std::mt19937 rng(3);
    const Ids tokens = random_tokens(rng, 50, model.n_vocab);
    for (const int32_t code : {1, 2, -1, -3}) {
        const Scope scope("code " + std::to_string(code));
        Bench bench(model);
        bench.llama.decode_codes[1] = code;
        MockSampler sampler;
        bench.session.begin(tokens, sampler.get(), dynamic_settings(model), 10, false);
        CHECK_EQ(bench.session.prefill().n_tokens, 0);
        CHECK_ERROR(MP_ERROR_DECODE, "", bench.session.prefill());
        check_after_failure(bench, Ids(tokens.begin(), tokens.begin() + 21)); // the first chunk stays
        const Generation g = generate(bench, tokens, dynamic_settings(model), 10, 0, true);
        CHECK_EQ(g.n_reused, size_t{21});
        CHECK_EQ(g.tokens, plain_decode(model, tokens, 0, 10));
    }
}

// Sessions over a memory that cannot be cut forget everything instead.
void failure_without_cutting() {
    const MockLlama model = mixed_model();
    Bench bench(model);
    bench.llama.can_cut = false;
    bench.llama.decode_codes[3] = 2;
    MockSampler sampler;
    bench.session.begin(prompt, sampler.get(), Speculation(), 10, false);
    bench.session.prefill();
    bench.session.step();
    bench.session.step();
    CHECK_ERROR(MP_ERROR_DECODE, "aborted", bench.session.step());
    check_after_failure(bench, {});
    CHECK_EQ(generate(bench, prompt, Speculation(), 10, 0, true).tokens, plain_decode(model, prompt, 0, 10));
}

// The sampler's choice is no row of the embedding table (vocabularies can be padded): an error, not a crash.
void token_without_embedding() {
    MockLlama model;
    Bench bench(model);
    const MockGguf small("token_embd.weight", model.n_embd, 1, type_i8, std::vector<char>(model.n_embd, 1));
    Embeddings embeddings({small.path()});
    Session session(bench.llama.context(), &embeddings, 1.0f);
    MockSampler sampler;
    Speculation speculation = speculate(model, 1, {}, 10);
    speculation.update = 0.1f;
    session.begin(prompt, sampler.get(), speculation, 10, false);
    CHECK_ERROR(MP_ERROR_ARGUMENT, "outside", session.prefill());
    CHECK(session.cached().empty());
    check_kv(bench.llama, session);
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    MockLlama looping = mixed_model(); // text that repeats, so that a mixed tree has something to draft from
    looping.n_remembered = 2;
    const MockLlama model = mixed_model();
    run("decode fails, plain", [&] { decode_fails(model, Speculation()); });
    run("decode fails, static tree", [&] { decode_fails(model, static_settings(model)); });
    run("decode fails, dynamic tree", [&] { decode_fails(model, dynamic_settings(model)); });
    run("decode fails, mixed tree", [&] { decode_fails(looping, mixed_settings(looping)); });
    run("logits are missing, plain", [&] { logits_are_missing(model, Speculation()); });
    run("logits are missing, static tree", [&] { logits_are_missing(model, static_settings(model)); });
    run("logits are missing, dynamic tree", [&] { logits_are_missing(model, dynamic_settings(model)); });
    run("logits are missing, mixed tree", [&] { logits_are_missing(looping, mixed_settings(looping)); });
    run("nothing is left to draw, plain", [&] { nothing_is_left_to_draw(model, Speculation()); });
    run("nothing is left to draw, static tree", [&] { nothing_is_left_to_draw(model, static_settings(model)); });
    run("nothing is left to draw, mixed tree", [&] { nothing_is_left_to_draw(looping, mixed_settings(looping)); });
    run("prompt fails in its second chunk", prompt_fails_in_its_second_chunk);
    run("failure without cutting", failure_without_cutting);
    run("token without embedding", token_without_embedding);
    return finish();
}
