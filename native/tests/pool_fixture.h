// What the tests of lanes share: a pool over a mock that watches over its promises, and what its memory must hold.
#pragma once

#include "pool.h"
#include "session_fixture.h"

#include <map>

namespace mp::test {

// Models whose text repeats, so that drafts come true.
inline MockLlama repeating(uint32_t n_ctx) {
    MockLlama model;
    model.resize(n_ctx);
    model.n_remembered = 2;
    model.rank_of_truth = [](int32_t pos, size_t mask) { return (pos * 7 + static_cast<int32_t>(mask) * 3) % 4 - 1; };
    return model;
}

inline MockLlama with_states(uint32_t n_ctx, uint32_t n_snapshots = 8) {
    MockLlama model = repeating(n_ctx);
    model.kind = MockMemory::snapshots;
    model.n_snapshots = n_snapshots;
    model.resize(n_ctx);
    return model;
}

// A mock with room for the lanes' sequences and for the two that are nobody's, which have no recurrent states.
inline MockLlama shared_by_lanes(MockLlama model, const PoolSizes & sizes) {
    model.n_ids = static_cast<int32_t>(sizes.n_ids);
    model.n_seq_max = static_cast<uint32_t>(sizes.n_lanes * sizes.n_ids + (model.kind == MockMemory::cells ? 2 : 0));
    model.nobodys = {static_cast<int32_t>(sizes.n_lanes * sizes.n_ids)};
    return model;
}

// The pool keeps pointers to its neighbours here, so a bench stays where it is.
struct PoolBench {
    PoolSizes sizes;
    MockLlama llama;
    MockGguf file;
    Embeddings embeddings;
    Pool pool;

    PoolBench(const MockLlama & model, const PoolSizes & with)
        : sizes(with), llama(shared_by_lanes(model, with).fresh()), file(llama), embeddings({file.path()}),
          pool(llama.context(), &embeddings, llama.embedding_scale, with) {}
    PoolBench(const PoolBench &) = delete;
    PoolBench & operator=(const PoolBench &) = delete;

    const Lane & lane(size_t i) { return pool.lane(i); }
};

// Each lane's cells hold its tokens, in order of position, with the first of its sequences; and the pool knows how many
// cells are in use.
inline void check_pool(PoolBench & bench) {
    const int32_t n_ids = bench.llama.n_ids;
    CHECK_EQ(bench.pool.cells().n_used(), bench.llama.n_used());
    std::vector<MockChain> chains(bench.sizes.n_lanes);
    for (const MockCell & cell : bench.llama.cells) {
        if (cell.pos < 0) {
            continue;
        }
        for (size_t i = 0; i < bench.sizes.n_lanes; ++i) {
            const Lane & lane = bench.lane(i);
            std::bitset<256> mine;
            std::bitset<256> expected;
            for (int32_t s = 0; s < n_ids; ++s) {
                mine.set(static_cast<int32_t>(i) * n_ids + s);
                expected.set(static_cast<int32_t>(i) * n_ids + s, s < lane.cache().n_sequences());
            }
            if ((cell.sequences & mine).none()) {
                continue;
            }
            CHECK_EQ(cell.sequences & mine, expected);
            MockChain & chain = chains[i];
            if (CHECK(static_cast<size_t>(chain.n) < lane.cached().size())) {
                CHECK_EQ(cell.pos, chain.n);
                CHECK_EQ(cell.token, lane.cached()[chain.n]);
                CHECK_EQ(cell.state, chain.push(lane.cached()[chain.n]));
            }
        }
    }
    for (size_t i = 0; i < chains.size(); ++i) {
        CHECK_EQ(static_cast<size_t>(chains[i].n), bench.lane(i).cached().size());
    }
    CHECK_EQ(bench.llama.violations, std::vector<std::string>());
    CHECK_EQ(bench.llama.n_odd_masks, size_t{0});
}

// A generation that runs in a lane, and what it must give.
struct Running {
    Ids prompt;
    Ids plain; // by plain decoding alone
    Ids tokens;
    MockSampler sampler;
    int32_t n_passes = 0;

    bool is_done() const { return tokens.size() >= plain.size(); }
};

inline void begin(PoolBench & bench, size_t lane, Running & running, const Speculation & speculation,
                  int32_t max_tokens, bool reuse) {
    MockLlama alone = bench.llama.fresh();
    alone.n_ids = 0;
    running.plain = plain_decode(alone, running.prompt, running.sampler.seed, max_tokens);
    running.tokens.clear();
    running.sampler.draws.clear();
    bench.pool.begin(lane, running.prompt, running.sampler.get(), speculation, max_tokens, reuse);
}

// Takes what a pass has committed, and holds it to what it must be. False if it is wrong.
inline bool take(Running & running, const Outcome & outcome) {
    running.n_passes += outcome.pass->n_rows > 0;
    running.tokens.insert(running.tokens.end(), outcome.pass->tokens, outcome.pass->tokens + outcome.pass->n_tokens);
    return CHECK(running.tokens.size() <= running.plain.size() &&
                 std::equal(running.tokens.begin(), running.tokens.end(), running.plain.begin()));
}

inline std::vector<size_t> lanes_of(const std::map<size_t, Running> & running) {
    std::vector<size_t> lanes;
    for (const auto & [lane, one] : running) {
        lanes.push_back(lane);
    }
    return lanes;
}

// Passes for all lanes that run until each has ended.
inline void run_all(PoolBench & bench, std::map<size_t, Running> & running) {
    for (int n = 0; !running.empty() && n < 2000; ++n) {
        const std::vector<size_t> lanes = lanes_of(running);
        const std::vector<Outcome> outcomes = bench.pool.pass(lanes);
        for (size_t i = 0; i < lanes.size(); ++i) {
            Running & one = running[lanes[i]];
            if (!CHECK(!outcomes[i].error) || !take(one, outcomes[i])) {
                return;
            }
            if (one.is_done()) {
                bench.pool.lane(lanes[i]).end();
                running.erase(lanes[i]);
            }
        }
        check_pool(bench);
    }
    CHECK(running.empty());
}

} // namespace mp::test
