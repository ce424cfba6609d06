// One lane's failure is no other lane's, whether the memory holds keys and values or recurrent states.
#include "error.h"
#include "pool_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

struct Kind {
    MockLlama (*model)(uint32_t n_ctx);
    PoolSizes sizes;
    bool has_states;
};

const Kind keys{repeating, {4, 8, 24, 8, 0}, false};
const Kind states{[](uint32_t n_ctx) { return with_states(n_ctx); }, {4, 1, 24, 8, 0}, true};

// Passes for all lanes that run, until each has ended or failed. How many have failed.
template <typename OnFailure>
size_t run_all_but_failed(PoolBench & bench, std::map<size_t, Running> & running, const OnFailure & on_failure) {
    size_t n_failed = 0;
    while (!running.empty()) {
        const std::vector<size_t> lanes = lanes_of(running);
        const std::vector<Outcome> outcomes = bench.pool.pass(lanes);
        for (size_t i = 0; i < lanes.size(); ++i) {
            if (outcomes[i].error) {
                ++n_failed;
                on_failure(lanes[i], outcomes[i], lanes.size());
                running.erase(lanes[i]);
            } else if (!take(running[lanes[i]], outcomes[i])) {
                return n_failed;
            } else if (running[lanes[i]].is_done()) {
                running.erase(lanes[i]);
            }
        }
        check_pool(bench);
    }
    return n_failed;
}

// llama_decode fails at any call, with any code: a pass that fails for all is made for each alone, so nobody loses
// anything; what fails alone too is that lane's loss only. Where states are lost everybody's tokens are decoded again.
void decodes_fail(const Kind & kind) {
    const MockLlama model = kind.model(160);
    size_t n_lost = 0;
    for (const int32_t code : {1, 2, -1, -2, -3}) {
        for (size_t call = 0; call < 40; call += 3) {
            for (const size_t n_more : {0, 1, 2}) {
                const Scope scope("code " + std::to_string(code) + " at call " + std::to_string(call));
                PoolBench bench(model, kind.sizes);
                for (size_t i = 0; i <= n_more; ++i) {
                    bench.llama.decode_codes[call + i] = code;
                }
                std::map<size_t, Running> running;
                std::mt19937 rng(static_cast<uint32_t>(call));
                for (size_t lane = 0; lane < 4; ++lane) {
                    running[lane].prompt = random_tokens(rng, 4 + 5 * lane, model.n_vocab);
                    running[lane].sampler.seed = lane;
                    begin(bench, lane, running[lane],
                          lane == 1 ? Speculation() : mixed(bench.llama, lane == 2 ? 2 : 0, 12, 0.1f), 25, false);
                }
                size_t n_alone = 0;
                const size_t n_failed =
                    run_all_but_failed(bench, running, [&](size_t lane, const Outcome & outcome, size_t n_lanes) {
                        n_alone += n_lanes == 1;
                        CHECK_ERROR(MP_ERROR_DECODE, "llama_decode", std::rethrow_exception(outcome.error));
                        CHECK_EQ(running[lane].sampler.draws.size(), running[lane].tokens.size());
                    });
                // The first of them failed for all, and then for nobody.
                CHECK(n_failed <= n_more + (kind.has_states ? 1 : n_alone));
                n_lost += n_failed;
            }
        }
    }
    CHECK(n_lost > 50);
}

// Missing logits and samplers that rule everything out.
void rows_are_bad(const Kind & kind) {
    const MockLlama model = kind.model(200);
    size_t n_failed = 0;
    for (size_t call = 0; call < 120; call += 2) {
        const Scope scope("logits call " + std::to_string(call));
        PoolBench bench(model, kind.sizes);
        bench.llama.null_logits = {call};
        std::map<size_t, Running> running;
        for (size_t lane = 0; lane < 4; ++lane) {
            running[lane].prompt = {static_cast<int32_t>(lane), 8, 9, 8, 9, 8};
            if (call % 4 == 0 && lane == 1) {
                running[lane].sampler.n_allowed = call / 8;
            }
            begin(bench, lane, running[lane], mixed(bench.llama, lane == 2 ? 1 : 0, 12, 0.1f), 25, false);
        }
        const size_t n_lost = run_all_but_failed(
            bench, running, [&](size_t lane, const Outcome &, size_t) { CHECK(!bench.lane(lane).goes_on()); });
        CHECK(n_lost <= 2);
        n_failed += n_lost;
        // A lane that has failed begins again.
        bench.llama.null_logits.clear();
        running[1].prompt = {1, 8, 9, 8, 9, 8};
        begin(bench, 1, running[1], Speculation(), 10, true);
        run_all(bench, running);
    }
    CHECK(n_failed > 50);
}

// States that llama.cpp does not take back when the cells are packed: the tokens are decoded again.
void cells_cannot_be_packed(const Kind & kind) {
    PoolBench bench(kind.model(90), kind.sizes);
    bench.llama.can_load = false;
    std::map<size_t, Running> running;
    for (size_t lane = 0; lane < 3; ++lane) {
        running[lane].prompt = {static_cast<int32_t>(lane), 8, 9, 8, 9, 8};
        begin(bench, lane, running[lane], mixed(bench.llama, 0, 10, 0.02f), 30, false);
    }
    run_all(bench, running);
    CHECK(bench.pool.n_compactions() > 0);
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("decodes fail, keys", [] { decodes_fail(keys); });
    run("decodes fail, states", [] { decodes_fail(states); });
    run("rows are bad, keys", [] { rows_are_bad(keys); });
    run("rows are bad, states", [] { rows_are_bad(states); });
    run("cells cannot be packed, keys", [] { cells_cannot_be_packed(keys); });
    run("cells cannot be packed, states", [] { cells_cannot_be_packed(states); });
    return finish();
}
