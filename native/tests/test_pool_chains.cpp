// Lanes with recurrent states: chains of equal length go together, each lane commits the tokens of decoding one row at
// a time, and the mock finds nothing that llama.cpp would do wrong with states or cells.
#include "error.h"
#include "pool_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

constexpr PoolSizes four{4, 1, 24, 8, 0};

Speculation any_speculation(std::mt19937 & rng, const MockLlama & model) {
    switch (below(rng, 3)) {
    case 0: return {};
    case 1: return mixed(model, 0, 12, 0.1f * static_cast<float>(below(rng, 5)));
    default: return mixed(model, 1 + below(rng, 2), 10, 0.05f);
    }
}

// Requests come and go in random lanes, with prompts that go on from one another; some are given up, some fail. The
// memory is too small for all of them.
void lanes_come_and_go() {
    std::mt19937 rng(3);
    int64_t n_tokens = 0;
    int64_t n_decodes = 0;
    int64_t n_together = 0; // of these, for several lanes
    int64_t n_compactions = 0;
    int64_t n_failed = 0;
    for (int round = 0; round < 60; ++round) {
        const Scope scope("round " + std::to_string(round));
        MockLlama model =
            with_states(static_cast<uint32_t>(80 + below(rng, 200)), static_cast<uint32_t>(2 + below(rng, 9)));
        const PoolSizes sizes{static_cast<size_t>(2 + below(rng, 5)), 1, static_cast<size_t>(12 + below(rng, 40)),
                              static_cast<size_t>(1 + below(rng, 24)), static_cast<size_t>(below(rng, 3) * 20)};
        model.n_remembered = below(rng, 4);
        if (below(rng, 3) == 0) {
            model.eog = {below(rng, model.n_vocab)};
        }
        PoolBench bench(model, sizes);
        bench.pool.park(static_cast<size_t>(below(rng, 2) * below(rng, 100000)));
        std::map<size_t, Running> running;
        for (int step = 0; step < 150 && n_failures == 0; ++step) {
            const auto lane = static_cast<size_t>(below(rng, static_cast<int32_t>(sizes.n_lanes)));
            if (running.count(lane) == 0) {
                Running & one = running[lane];
                const auto from = static_cast<size_t>(below(rng, static_cast<int32_t>(sizes.n_lanes)));
                one.prompt = bench.lane(below(rng, 2) == 0 ? lane : from).cached();
                if (below(rng, 2) == 0) {
                    one.prompt.resize(below(rng, static_cast<int32_t>(one.prompt.size()) + 1));
                }
                one.prompt.resize(std::min<size_t>(one.prompt.size(), 60));
                const Ids more = random_tokens(rng, 1 + below(rng, 40), model.n_vocab);
                one.prompt.insert(one.prompt.end(), more.begin(), more.end());
                one.prompt.resize(std::min<size_t>(one.prompt.size(), model.n_ctx - 1));
                one.sampler.seed = below(rng, 3);
                begin(bench, lane, one, any_speculation(rng, bench.llama), 1 + below(rng, 40), below(rng, 4) > 0);
            } else if (below(rng, 25) == 0) { // given up
                below(rng, 2) == 0 ? bench.pool.lane(lane).reset() : bench.pool.lane(lane).end();
                running.erase(lane);
            }
            if (below(rng, 100) == 0) {
                bench.llama.decode_codes = {{bench.llama.n_decode_calls, below(rng, 2) == 0 ? 2 : 1}};
            }
            std::vector<size_t> lanes;
            for (const size_t i : lanes_of(running)) {
                if (below(rng, 4) > 0) {
                    lanes.push_back(i);
                }
            }
            const std::vector<Outcome> outcomes = bench.pool.pass(lanes);
            for (size_t i = 0; i < lanes.size(); ++i) {
                Running & one = running[lanes[i]];
                if (outcomes[i].error) {
                    ++n_failed;
                    running.erase(lanes[i]);
                    continue;
                }
                if (!take(one, outcomes[i])) {
                    return;
                }
                n_tokens += outcomes[i].pass->n_tokens;
                if (one.is_done()) {
                    CHECK_EQ(one.tokens, one.plain);
                    if (below(rng, 2) == 0) {
                        bench.pool.lane(lanes[i]).end();
                    }
                    running.erase(lanes[i]);
                }
            }
            check_pool(bench);
        }
        n_compactions += bench.pool.n_compactions();
        n_decodes += static_cast<int64_t>(bench.llama.history.size());
        for (const std::vector<MockRow> & rows : bench.llama.history) {
            n_together += rows.front().sequences != rows.back().sequences;
        }
        bench.llama.decode_codes.clear();
        run_all(bench, running);
    }
    std::cout << n_tokens << " tokens in " << n_decodes << " decodes, " << n_together << " together, " << n_compactions
              << " compactions, " << n_failed << " failures\n";
    CHECK(n_together > 1000);
    CHECK(n_compactions > 50);
    CHECK(n_failed > 20);
}

// Four texts side by side take the decodes of one, and no text has more rows than another.
void texts_go_together() {
    const MockLlama model = with_states(400);
    PoolBench bench(model, four);
    std::map<size_t, Running> running;
    for (size_t lane = 0; lane < 4; ++lane) {
        running[lane].prompt = {static_cast<int32_t>(lane), 1, 4, 1, 5};
        begin(bench, lane, running[lane], lane == 3 ? Speculation() : mixed(bench.llama, 0, 8, 0.01f), 60, false);
    }
    run_all(bench, running);
    CHECK(bench.llama.n_decode_calls <= 64); // of which prompts take four, and the plain text 59
    size_t most = 0;
    for (const std::vector<MockRow> & rows : bench.llama.history) {
        std::map<int32_t, size_t> n;
        for (const MockRow & row : rows) {
            ++n[row.sequences[0]];
        }
        for (const auto & [sequence, n_rows] : n) {
            CHECK_EQ(n_rows, n.begin()->second);
            most = std::max(most, n.count(3) != 0 && rows[0].pos > 5 ? n_rows : 0);
        }
    }
    CHECK(most > 1); // the plain text beside the others has rows that nobody looks at
}

// Prompts beside others are decoded by themselves, and nobody waits for them.
void prompts_come_in_pieces_beside_others() {
    const MockLlama model = with_states(600);
    PoolBench bench(model, four);
    std::mt19937 rng(9);
    std::vector<Running> running(2);
    running[0].prompt = {3, 1};
    running[1].prompt = random_tokens(rng, 100, model.n_vocab);
    begin(bench, 0, running[0], Speculation(), 100, false);
    take(running[0], bench.pool.pass({0})[0]);
    begin(bench, 1, running[1], Speculation(), 100, false);
    for (int32_t n = 1; running[1].tokens.empty() && n < 50; ++n) {
        const size_t n_decodes = bench.llama.n_decode_calls;
        const std::vector<Outcome> outcomes = bench.pool.pass({0, 1});
        take(running[0], outcomes[0]);
        take(running[1], outcomes[1]);
        CHECK_EQ(bench.llama.n_decode_calls - n_decodes, size_t{2});
        CHECK_EQ(static_cast<int32_t>(running[0].tokens.size()), 1 + n);
        CHECK_EQ(bench.llama.rows.size(), n < 13 ? size_t{8} : size_t{4});
        check_pool(bench);
    }
    CHECK_EQ(running[0].tokens.size(), size_t{14});
}

// A prompt that goes on from a lane's text, or from the end of its prompt; a text that left the cells; and none of
// which only a beginning is there.
void prompts_go_on() {
    const MockLlama model = with_states(300);
    PoolBench bench(model, {2, 1, 24, 8, 0});
    bench.pool.park(1u << 20);
    std::mt19937 rng(21);
    const auto answer = [&](size_t lane, const Ids & prompt) {
        std::map<size_t, Running> running;
        running[lane].prompt = prompt;
        begin(bench, lane, running[lane], mixed(bench.llama, 0, 10, 0.05f), 40, true);
        const size_t n_cached = bench.lane(lane).cached().size();
        run_all(bench, running);
        return n_cached;
    };
    const auto longer = [](Ids text, const Ids & more) {
        text.insert(text.end(), more.begin(), more.end());
        return text;
    };
    const Ids first = random_tokens(rng, 50, model.n_vocab);
    const Ids second = random_tokens(rng, 50, model.n_vocab);
    CHECK_EQ(answer(0, first), size_t{0});
    const Ids said = bench.lane(0).cached();
    CHECK_EQ(answer(1, second), size_t{0});
    CHECK_EQ(answer(0, longer(first, {1, 2})), first.size()); // back to the end of the prompt
    CHECK_EQ(answer(1, longer(first, {3})), size_t{0});       // which is the other lane's
    const Ids now = bench.lane(1).cached();
    CHECK_EQ(answer(1, longer(now, {5})), now.size());
    CHECK_EQ(answer(1, longer(said, {9, 9})), said.size()); // was parked when its lane went back
    CHECK(bench.pool.parking().size() >= 2);
}

// What two lanes fail at together they do not fail at again together: the one that is to blame fails alone.
void the_one_to_blame_fails_alone() {
    const MockLlama model = with_states(400);
    PoolBench bench(model, four);
    std::map<size_t, Running> running;
    for (size_t lane = 0; lane < 4; ++lane) {
        running[lane].prompt = {static_cast<int32_t>(lane), 1, 4, 1, 5};
        begin(bench, lane, running[lane], mixed(bench.llama, 0, 8, 0.1f), 30, false);
    }
    for (int n = 0; n < 5; ++n) {
        const std::vector<Outcome> outcomes = bench.pool.pass({0, 1, 2, 3});
        for (size_t lane = 0; lane < 4; ++lane) {
            take(running[lane], outcomes[lane]);
        }
    }
    const size_t call = bench.llama.n_decode_calls;
    bench.llama.decode_codes = {{call, -3}};
    for (const Outcome & outcome : bench.pool.pass({0, 1, 2, 3})) {
        CHECK(!outcome.error);
        CHECK_EQ(outcome.pass->n_rows, 0); // it waits
    }
    check_pool(bench);
    CHECK_EQ(bench.llama.n_used(), size_t{0});
    run_all(bench, running);
    for (size_t i = call; i < bench.llama.history.size(); ++i) {
        for (const MockRow & row : bench.llama.history[i]) {
            CHECK_EQ(row.sequences, bench.llama.history[i][0].sequences);
        }
    }
}

// A decode of one row gets one behind it where the cache is long, which leaves no trace.
void lone_rows_are_padded() {
    const MockLlama model = with_states(100);
    PoolBench bench(model, {2, 1, 16, 8, 20});
    std::map<size_t, Running> running;
    running[1].prompt = Ids(9, 3);
    begin(bench, 1, running[1], Speculation(), 30, false);
    run_all(bench, running);
    CHECK_EQ(bench.pool.n_compactions(), int64_t{0});
    for (const std::vector<MockRow> & rows : bench.llama.history) {
        const bool is_first = rows[0].pos == 0;
        CHECK(is_first || rows.size() == (rows[0].pos < 20 ? 1 : 2)); // the last piece of the prompt is one row too
        CHECK(is_first || rows.size() == 1 || !rows[1].output);
    }
}

void what_does_not_fit_is_refused() {
    MockLlama model = with_states(100);
    model.n_seq_max = 3;
    CHECK_ERROR(MP_ERROR_ARGUMENT, "not the 3 recurrent states",
                Pool(model.context(), nullptr, 1.0f, PoolSizes{2, 1, 16, 8, 0}));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "not the 3 recurrent states",
                Pool(model.context(), nullptr, 1.0f, PoolSizes{3, 2, 16, 8, 0}));
    model.kind = MockMemory::copies;
    model.n_snapshots = 0;
    CHECK_ERROR(MP_ERROR_ARGUMENT, "one text at a time",
                Pool(model.context(), nullptr, 1.0f, PoolSizes{3, 1, 16, 8, 0}));
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("lanes come and go", lanes_come_and_go);
    run("texts go together", texts_go_together);
    run("prompts come in pieces", prompts_come_in_pieces_beside_others);
    run("prompts go on", prompts_go_on);
    run("the one to blame fails alone", the_one_to_blame_fails_alone);
    run("lone rows are padded", lone_rows_are_padded);
    run("what does not fit is refused", what_does_not_fit_is_refused);
    return finish();
}
