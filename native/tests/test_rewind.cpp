// Sessions on memories with a recurrent state: the committed tokens are those of decoding one row at a time, drafts are
// chains, and the mock finds nothing that llama.cpp would do wrong (mock_state.cpp, remove_state and check_state).
#include "error.h"
#include "session_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

MockLlama recurrent(MockMemory kind, uint32_t n_snapshots) {
    MockLlama model;
    model.kind = kind;
    model.n_snapshots = kind == MockMemory::snapshots ? n_snapshots : 0;
    model.n_seq_max = kind == MockMemory::snapshots ? 1 : 2;
    model.n_remembered = 2; // text that repeats, so that drafts come true
    return model;
}

const MockMemory kinds[] = {MockMemory::snapshots, MockMemory::copies};

void test_equal_to_plain_decoding() {
    std::mt19937 rng(5);
    for (int i = 0; i < 400; ++i) {
        MockLlama model = recurrent(kinds[i % 2], 1 + below(rng, 12));
        model.resize(40 + below(rng, 100));
        model.n_remembered = below(rng, 3);
        model.n_ubatch = model.n_batch = 16 + below(rng, 30);
        model.has_four_positions = below(rng, 2) == 0;
        model.n_embd_more = below(rng, 3);
        if (below(rng, 3) == 0) {
            model.eog = {below(rng, model.n_vocab)};
        }
        const int32_t n_masks = kinds[i % 2] == MockMemory::snapshots ? below(rng, 4) : 0;
        const int32_t block = 1 + below(rng, 15);
        const Speculation speculation = mixed(model, n_masks, block, 0.01f * static_cast<float>(below(rng, 40)));
        Bench bench(model);
        for (int round = 0; round < 3; ++round) {
            const Ids prompt = random_tokens(rng, 1 + below(rng, 30), model.n_vocab);
            const uint64_t seed = below(rng, 3);
            const Generation g = generate(bench, prompt, speculation, 1 + below(rng, 60), seed);
            CHECK_EQ(g.tokens, plain_decode(model, prompt, seed, static_cast<int32_t>(g.tokens.size())));
        }
    }
}

struct Sums {
    int32_t n_passes = 0;
    int32_t n_tokens = 0;
    int32_t n_again = 0;
    int32_t most_rows = 0;
    int32_t n_probed = 0;
};

Sums sums_of(const Generation & g) {
    Sums sums;
    for (const Pass & pass : g.passes) {
        if (pass.n_drafted > 0 || pass.n_rows > 0) {
            ++sums.n_passes;
        }
        sums.n_tokens += static_cast<int32_t>(pass.tokens.size());
        sums.n_again += pass.n_again;
        sums.most_rows = std::max(sums.most_rows, pass.n_rows);
        sums.n_probed += pass.n_probed;
    }
    return sums;
}

void test_text_that_repeats_takes_few_passes() {
    for (const MockMemory kind : kinds) {
        const MockLlama model = recurrent(kind, 8);
        Bench bench(model);
        const Ids prompt{1, 2, 3};
        const Generation g = generate(bench, prompt, mixed(model, 0, 16, 0.02f), 100);
        const Sums sums = sums_of(g);
        CHECK(sums.n_tokens >= 2 * sums.n_passes);
        CHECK((sums.n_again > 0) == (kind == MockMemory::copies)); // only a copy is decoded again
        if (kind == MockMemory::snapshots) {
            CHECK(std::all_of(g.passes.begin() + 1, g.passes.end(), [](const Pass & p) { return p.n_rows <= 9; }));
        }
    }
}

void test_masks_ride_at_the_end_of_a_chain() {
    MockLlama model = recurrent(MockMemory::snapshots, 6);
    model.n_remembered = 0; // nothing but masks knows what follows
    Bench bench(model);
    const Ids prompt{4, 9, 1};
    const Generation g = generate(bench, prompt, mixed(model, 2, 7, 0.01f), 80);
    CHECK_EQ(g.tokens, plain_decode(model, prompt, 0, 80));
    CHECK(sums_of(g).n_probed > 10);
    CHECK(sums_of(g).n_tokens > sums_of(g).n_passes + 10);
}

void test_trees_are_refused() {
    const MockLlama model = recurrent(MockMemory::snapshots, 8);
    Bench bench(model);
    CHECK_ERROR(MP_ERROR_ARGUMENT, "one chain",
                bench.session.begin({1, 2}, nullptr, speculate(model, 1, {3}, 8), 8, false));
}

// A failure at any call leaves a session that goes on: with what it held before where a copy was spoiled, else anew.
void test_failures_leave_a_usable_session() {
    for (const MockMemory kind : kinds) {
        MockLlama model = recurrent(kind, 8);
        model.n_batch = model.n_ubatch = 12;
        const Ids prompt{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1};
        for (size_t call = 0; call < 40; ++call) {
            for (const int32_t code : {1, 2, -3, 0}) { // 0: no logits
                Bench bench(model);
                const Speculation speculation = mixed(model, 0, 12, 0.02f);
                MockSampler sampler;
                bench.session.begin(prompt, sampler.get(), speculation, 60, false);
                (code == 0 ? void(bench.llama.null_logits.insert(call)) : void(bench.llama.decode_codes[call] = code));
                Ids before;
                try {
                    while (sampler.draws.size() < 60) {
                        before = bench.session.cached();
                        sampler.draws.empty() ? bench.session.prefill() : bench.session.step();
                    }
                } catch (const Error & error) {
                    CHECK_EQ(static_cast<int>(error.status), static_cast<int>(MP_ERROR_DECODE));
                    CHECK(bench.session.cached() == before || bench.session.cached().empty());
                }
                check_kv(bench.llama, bench.session);
                bench.llama.decode_codes.clear();
                bench.llama.null_logits.clear();
                const Generation g = generate(bench, prompt, speculation, 30, 0, true);
                CHECK_EQ(g.tokens, plain_decode(model, prompt, 0, 30));
            }
        }
    }
}

void test_prompts_go_on_from_what_is_there() {
    for (const MockMemory kind : kinds) {
        MockLlama model = recurrent(kind, 8);
        model.resize(256);
        Bench bench(model);
        const Speculation speculation = mixed(model, 0, 8, 0.02f);
        Ids chat{1, 2, 3, 4, 5, 6};
        const Generation first = generate(bench, chat, speculation, 20);
        // The answer and more: only what is new is decoded.
        Ids longer = bench.session.cached();
        longer.insert(longer.end(), {7, 8, 9});
        Generation next = generate(bench, longer, speculation, 10, 0, true);
        CHECK_EQ(next.n_reused, longer.size() - 3);
        CHECK_EQ(next.tokens, plain_decode(model, longer, 0, 10));
        // Another answer than the one that was given: back to the end of the prompt before it.
        Ids other = longer;
        other.insert(other.end(), {30, 31, 32});
        next = generate(bench, other, speculation, 10, 0, true);
        CHECK_EQ(next.n_reused, longer.size());
        CHECK_EQ(next.tokens, plain_decode(model, other, 0, 10));
        chat.insert(chat.end(), {20, 21});
        next = generate(bench, chat, speculation, 10, 0, true);
        CHECK_EQ(next.n_reused, size_t{6});
        CHECK_EQ(next.tokens, plain_decode(model, chat, 0, 10));
        // Another text: nothing is left.
        next = generate(bench, {9, 9, 9}, speculation, 5, 0, true);
        CHECK_EQ(next.n_reused, size_t{0});
        CHECK_EQ(next.tokens, plain_decode(model, {9, 9, 9}, 0, 5));
        // A state that llama.cpp does not take back: decoded anew.
        generate(bench, chat, speculation, 5, 0, true);
        bench.llama.can_load = false;
        Ids again(chat);
        again.push_back(33);
        next = generate(bench, again, speculation, 5, 0, true);
        CHECK_EQ(next.n_reused, size_t{0});
        CHECK_EQ(next.tokens, plain_decode(model, again, 0, 5));
    }
}

// A checkpoint is of a recurrent state alone: where the cells hold another text it is of no use.
void test_checkpoints_of_another_text_are_not_taken() {
    for (const MockMemory kind : kinds) {
        const MockLlama model = recurrent(kind, 8);
        Bench bench(model);
        const Speculation speculation = mixed(model, 0, 8, 0.02f);
        const Ids one{1, 2, 3, 4};
        generate(bench, one, speculation, 10);
        generate(bench, {9, 9, 9}, speculation, 10, 0, true);
        Ids again = one;
        again.insert(again.end(), {5, 6});
        const Generation g = generate(bench, again, speculation, 10, 0, true);
        CHECK_EQ(g.n_reused, size_t{0});
        CHECK_EQ(g.tokens, plain_decode(model, again, 0, 10));
    }
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    test_equal_to_plain_decoding();
    test_text_that_repeats_takes_few_passes();
    test_masks_ride_at_the_end_of_a_chain();
    test_trees_are_refused();
    test_failures_leave_a_usable_session();
    test_prompts_go_on_from_what_is_there();
    test_checkpoints_of_another_text_are_not_taken();
    return finish();
}
