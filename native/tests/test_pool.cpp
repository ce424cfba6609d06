// Lanes against plain decoding alone: whatever shares their passes, each commits the tokens of decoding one row at a
// time; one lane's end, cancellation or failure is no other lane's; and the memory holds what it should after each pass
// (pool_fixture.h checks that).
#include "error.h"
#include "pool_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

constexpr PoolSizes four{4, 8, 24, 8, 0};

Speculation any_speculation(std::mt19937 & rng, const MockLlama & model) {
    switch (below(rng, 5)) {
    case 0: return {};
    case 1: return speculate(model, 1, {3}, 8);
    case 2: return speculate(model, 2, {}, 12);
    case 3: return mixed(model, 0, 12, 0.1f * static_cast<float>(below(rng, 5)));
    default: return mixed(model, 2, 16, 0.05f);
    }
}

// Requests come and go in random lanes, with prompts that go on from one another; some are given up. The memory is too
// small for all of them.
void lanes_come_and_go() {
    std::mt19937 rng(3);
    int64_t n_tokens = 0;
    int64_t n_passes = 0;
    int64_t n_compactions = 0;
    int64_t n_waits = 0;
    for (int round = 0; round < 60; ++round) {
        const Scope scope("round " + std::to_string(round));
        PoolSizes sizes{static_cast<size_t>(2 + below(rng, 7)), static_cast<size_t>(1 + below(rng, 12)),
                        static_cast<size_t>(12 + below(rng, 40)), static_cast<size_t>(1 + below(rng, 24)),
                        static_cast<size_t>(below(rng, 3) * 20)};
        MockLlama model = repeating(static_cast<uint32_t>(70 + below(rng, 200)));
        model.n_remembered = below(rng, 4);
        model.embedding_scale = below(rng, 3) == 0 ? 4.0f : 1.0f;
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
                one.prompt.resize(below(rng, static_cast<int32_t>(std::min<size_t>(one.prompt.size(), 50)) + 1));
                const Ids more = random_tokens(rng, 1 + below(rng, 40), model.n_vocab);
                one.prompt.insert(one.prompt.end(), more.begin(), more.end());
                one.prompt.resize(std::min<size_t>(one.prompt.size(), model.n_ctx - 1));
                one.sampler.seed = below(rng, 3);
                Speculation speculation = any_speculation(rng, bench.llama);
                while (!speculation.is_mixed() && speculation.tree != MP_TREE_NONE &&
                       static_cast<size_t>(speculation.block / speculation.rows_per_node()) > sizes.n_ids) {
                    speculation = any_speculation(rng, bench.llama);
                }
                speculation.update = 0.1f * static_cast<float>(below(rng, 2));
                begin(bench, lane, one, speculation, 1 + below(rng, 40), below(rng, 4) > 0);
            } else if (below(rng, 25) == 0) { // given up
                below(rng, 2) == 0 ? bench.pool.lane(lane).reset() : bench.pool.lane(lane).end();
                running.erase(lane);
            }
            std::vector<size_t> lanes;
            for (const size_t i : lanes_of(running)) {
                if (below(rng, 4) > 0) {
                    lanes.push_back(i);
                }
            }
            const std::vector<Outcome> outcomes = bench.pool.pass(lanes);
            CHECK(lanes.empty() || bench.llama.rows.size() <= sizes.rows);
            ++n_passes;
            for (size_t i = 0; i < lanes.size(); ++i) {
                Running & one = running[lanes[i]];
                if (!CHECK(!outcomes[i].error) || !take(one, outcomes[i])) {
                    return;
                }
                n_tokens += outcomes[i].pass->n_tokens;
                n_waits += outcomes[i].pass->n_rows == 0;
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
        // What is still running ends too.
        run_all(bench, running);
    }
    std::cout << n_tokens << " tokens in " << n_passes << " passes, " << n_compactions << " compactions, " << n_waits
              << " waits\n";
    CHECK(n_tokens > n_passes);
    CHECK(n_compactions > 50);
    CHECK(n_waits > 50);
}

// Four lanes with the same request at once: what each commits, and in how many passes together.
void lanes_share_passes() {
    const MockLlama model = repeating(400);
    PoolBench bench(model, four);
    std::map<size_t, Running> running;
    for (size_t lane = 0; lane < 4; ++lane) {
        running[lane].prompt = {static_cast<int32_t>(lane), 1, 4, 1, 5};
        begin(bench, lane, running[lane], mixed(bench.llama, 0, 8, 0.1f), 30, false);
    }
    run_all(bench, running);
    CHECK(bench.llama.n_decode_calls <= 34); // of which prompts take three, and drafts spare some
    CHECK_EQ(bench.llama.history.size(), bench.llama.n_decode_calls);
}

// The rows that earn most are taken, whosever they are: a sure copy gets drafts, one with nothing sure its root.
void rows_go_where_they_earn() {
    MockLlama model = repeating(400);
    model.n_remembered = 1; // soon the text goes round in a circle
    PoolBench bench(model, four);
    Running copying;
    copying.prompt = {7};
    begin(bench, 0, copying, mixed(bench.llama, 0, 12, 0.2f), 60, false);
    Running unsure;
    unsure.prompt = {30};
    Speculation without = mixed(bench.llama, 0, 12, 0.2f);
    without.sources = 0; // nothing to draft from, and costs in common
    begin(bench, 1, unsure, without, 60, false);
    int32_t n_drafted = 0;
    while (!copying.is_done() && !unsure.is_done()) {
        const std::vector<Outcome> outcomes = bench.pool.pass({0, 1});
        if (!take(copying, outcomes[0]) || !take(unsure, outcomes[1])) {
            return;
        }
        CHECK_EQ(outcomes[1].pass->n_rows, 1);
        CHECK_EQ(outcomes[1].pass->price, outcomes[0].pass->price);
        n_drafted += outcomes[0].pass->n_drafted;
        check_pool(bench);
    }
    CHECK(n_drafted > 20);
    CHECK(unsure.tokens.size() < copying.tokens.size());
}

// Short prompts do not wait for long ones, nor those who write for any of them.
void prompts_come_in_pieces_beside_others() {
    const MockLlama model = repeating(600);
    PoolBench bench(model, four);
    std::mt19937 rng(9);
    std::vector<Running> running(3);
    running[0].prompt = {3, 1};
    running[1].prompt = random_tokens(rng, 300, model.n_vocab);
    running[2].prompt = random_tokens(rng, 12, model.n_vocab);
    for (size_t lane = 0; lane < 3; ++lane) {
        begin(bench, lane, running[lane], Speculation(), 100, false);
        if (lane == 0) {
            take(running[0], bench.pool.pass({0})[0]);
        }
    }
    int32_t n_passes = 0;
    while (running[2].tokens.empty() && n_passes < 50) {
        const std::vector<Outcome> outcomes = bench.pool.pass({0, 1, 2});
        for (size_t lane = 0; lane < 3; ++lane) {
            take(running[lane], outcomes[lane]);
        }
        ++n_passes;
        CHECK_EQ(bench.llama.rows.size(), size_t{8}); // the size of passes with pieces
        CHECK_EQ(static_cast<int32_t>(running[0].tokens.size()), 1 + n_passes);
        check_pool(bench);
    }
    CHECK_EQ(n_passes, 4); // three rows of seven in each
}

// What texts begin with in common is decoded once, and is everybody's own: it stays for one when another leaves.
void texts_that_begin_alike() {
    std::mt19937 rng(11);
    const MockLlama model = repeating(400);
    PoolBench bench(model, four);
    const Ids system = random_tokens(rng, 60, model.n_vocab);
    std::map<size_t, Running> running;
    for (size_t lane = 0; lane < 4; ++lane) {
        Running & one = running[lane];
        one.prompt = system;
        one.prompt.insert(one.prompt.end(), {static_cast<int32_t>(lane), 8, static_cast<int32_t>(lane), 8});
        one.sampler.seed = lane;
        begin(bench, lane, one, mixed(bench.llama, 2, 12, 0.05f), 30, true);
        CHECK_EQ(bench.lane(lane).cached().size(), lane == 0 ? size_t{0} : system.size());
        while (lane == 0 && bench.lane(0).phase() == Lane::Phase::prefill) {
            take(one, bench.pool.pass({0})[0]);
        }
        check_pool(bench);
    }
    CHECK(bench.llama.n_used() < 70); // the first one's
    for (int i = 0; i < 4; ++i) {
        const std::vector<Outcome> outcomes = bench.pool.pass({0, 1, 2, 3});
        for (size_t lane = 0; lane < 4; ++lane) {
            take(running[lane], outcomes[lane]);
        }
    }
    bench.pool.lane(0).reset(); // whose cells they were at first
    running.erase(0);
    check_pool(bench);
    run_all(bench, running);
    // Not where the prompt is to be decoded anew, nor for a few tokens.
    Running anew;
    anew.prompt = system;
    begin(bench, 0, anew, Speculation(), 5, false);
    CHECK(bench.lane(0).cached().empty());
    anew.prompt.resize(4);
    begin(bench, 0, anew, Speculation(), 5, true);
    CHECK(bench.lane(0).cached().empty());
}

// More conversations than there are lanes, and than the cells have room for: each finds its text again when its turn
// comes, until there are more than may be parked.
void conversations_are_parked() {
    const MockLlama model = repeating(200);
    PoolBench bench(model, {2, 8, 24, 8, 0});
    bench.pool.park(1u << 20);
    std::mt19937 rng(21);
    std::vector<Ids> texts(5);
    for (int turn = 0; turn < 3; ++turn) {
        for (size_t i = 0; i < texts.size(); ++i) {
            const Scope scope("turn " + std::to_string(turn) + " of conversation " + std::to_string(i));
            const Ids more = random_tokens(rng, turn == 0 ? 40 : 5, model.n_vocab);
            texts[i].insert(texts[i].end(), more.begin(), more.end());
            std::map<size_t, Running> running;
            Running & one = running[(i + static_cast<size_t>(turn)) % 2]; // whichever lane
            one.prompt = texts[i];
            begin(bench, running.begin()->first, one, mixed(bench.llama, 0, 10, 0.05f), 6, true);
            check_pool(bench);
            const size_t n_again = texts[i].size() - bench.lane(running.begin()->first).cached().size();
            CHECK(turn == 0 || n_again <= 5 + 4); // what is new, and the end of the answer before
            const Ids plain = one.plain;
            run_all(bench, running);
            texts[i].insert(texts[i].end(), plain.begin(), plain.end());
        }
    }
    CHECK(bench.pool.parking().size() >= 3);
    CHECK(bench.pool.parking().n_bytes() > 0);
    bench.pool.park(1);
    CHECK_EQ(bench.pool.parking().size(), size_t{0});
    CHECK_EQ(bench.pool.parking().n_bytes(), size_t{0});
}

// Texts in memory: the latest ones stay, and none that another one begins with.
void parking_keeps_the_latest() {
    const auto text = [](Ids tokens, size_t n) { return ParkedText{std::move(tokens), std::vector<uint8_t>(n)}; };
    Parking parking;
    parking.put(text({1, 2}, 10)); // nothing may be parked yet
    CHECK_EQ(parking.size(), size_t{0});
    parking.allow(100);
    parking.put(text({1, 2, 3}, 20));
    parking.put(text({5, 6}, 20));
    CHECK_EQ(parking.n_bytes(), size_t{20 + 12 + 20 + 8});
    parking.put(text({1, 2, 3, 4}, 20));
    CHECK_EQ(parking.size(), size_t{2});
    CHECK_EQ(parking.most_common({1, 2, 3, 4, 5}), size_t{4});
    parking.put(text({1, 2}, 20)); // is there
    CHECK_EQ(parking.size(), size_t{2});
    parking.put(text({7}, 60)); // 5 6 has to go
    CHECK_EQ(parking.most_common({5, 6}), size_t{0});
    CHECK_EQ(parking.take({1, 2}).tokens, (Ids{1, 2, 3, 4}));
    CHECK_EQ(parking.n_bytes(), size_t{64});
    parking.put(text({9}, 1000)); // too large, and it takes no other with it
    CHECK_EQ(parking.size(), size_t{1});
    CHECK_EQ(parking.most_common({7}), size_t{1});
}

// One lane alone leaves nothing behind, so it fills the whole cache without ever packing it.
void a_lane_alone_frees_its_cells() {
    const MockLlama model = repeating(100);
    PoolBench bench(model, four);
    std::map<size_t, Running> running;
    running[2].prompt = {3, 1, 4};
    begin(bench, 2, running[2], mixed(bench.llama, 2, 14, 0.01f), 1000, false);
    run_all(bench, running);
    CHECK_EQ(bench.lane(2).cached().size(), size_t{99}); // the last token needs no cell
    CHECK(bench.pool.n_compactions() <= 1);              // before the last passes, for fear that their rows do not fit
}

// A pass of one row gets one beside it where the cache is long, which leaves no trace.
void lone_rows_are_padded() {
    const MockLlama model = repeating(100);
    PoolBench bench(model, {2, 4, 16, 8, 20});
    std::map<size_t, Running> running;
    running[1].prompt = Ids(10, 3);
    begin(bench, 1, running[1], Speculation(), 30, false);
    run_all(bench, running);
    CHECK_EQ(bench.pool.n_compactions(), int64_t{0});
    for (const std::vector<MockRow> & rows : bench.llama.history) {
        const bool is_prompt = rows[0].pos < 10;
        CHECK(is_prompt || rows.size() == (rows[0].pos < 20 ? 1 : 2));
        if (!is_prompt && rows.size() > 1) {
            CHECK_EQ(rows[1].pos, 0);
            CHECK_EQ(rows[1].sequences, Ids{9});
            CHECK(!rows[1].output);
        }
    }
}

void what_does_not_fit_is_refused() {
    MockLlama model;
    model.n_seq_max = 10;
    CHECK_ERROR(MP_ERROR_ARGUMENT, "need 11", Pool(model.context(), nullptr, 1.0f, PoolSizes{3, 3, 16, 8, 0}));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "n_ubatch", Pool(model.context(), nullptr, 1.0f, PoolSizes{2, 3, 999, 8, 0}));
    PoolBench bench(MockLlama(), four);
    CHECK_ERROR(MP_ERROR_ARGUMENT, "begin a generation first", std::rethrow_exception(bench.pool.pass({0})[0].error));
    bench.pool.require_empty();
    Running one;
    one.prompt = {1, 2, 3};
    begin(bench, 0, one, Speculation(), 1, false);
    bench.pool.pass({0});
    CHECK_ERROR(MP_ERROR_ARGUMENT, "has ended", std::rethrow_exception(bench.pool.pass({0})[0].error));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "reset the session first", bench.pool.require_empty());
    bench.pool.lane(0).reset();
    CHECK(bench.llama.n_used() > 0); // left behind
    bench.pool.require_empty();
    CHECK_EQ(bench.llama.n_used(), size_t{0});
    check_pool(bench);
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("lanes come and go", lanes_come_and_go);
    run("lanes share passes", lanes_share_passes);
    run("rows go where they earn", rows_go_where_they_earn);
    run("prompts come in pieces", prompts_come_in_pieces_beside_others);
    run("texts that begin alike", texts_that_begin_alike);
    run("conversations are parked", conversations_are_parked);
    run("parking keeps the latest", parking_keeps_the_latest);
    run("a lane alone frees its cells", a_lane_alone_frees_its_cells);
    run("lone rows are padded", lone_rows_are_padded);
    run("what does not fit is refused", what_does_not_fit_is_refused);
    return finish();
}
