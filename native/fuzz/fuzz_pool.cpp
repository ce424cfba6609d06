// Lanes over a mock of any size: any settings, passes of any of them, generations that are given up or fail in any
// call, memories too small for all. Whatever a lane commits is what plain decoding gives; a failure is one lane's; the
// memory holds what the pool says.
#include "error.h"
#include "fuzz.h"
#include "model.h"
#include "pool_fixture.h"

#include <memory>

using namespace mp;
using namespace mp::test;

namespace {

MockLlama any_cells(Input & in) {
    MockLlama model = any_model(in);
    model.kind = MockMemory::cells;
    model.n_snapshots = 0;
    model.n_batch = std::max(model.n_batch, 2u);
    model.n_ubatch = std::max(model.n_ubatch, 2u);
    return model;
}

PoolSizes any_sizes(Input & in, const MockLlama & model) {
    PoolSizes sizes{};
    sizes.n_lanes = static_cast<size_t>(1 + in.below(6));
    sizes.n_ids = static_cast<size_t>(1 + in.below(10));
    sizes.rows = static_cast<size_t>(2 + in.below(static_cast<int32_t>(model.n_ubatch) - 1));
    sizes.piece = static_cast<size_t>(1 + in.below(30));
    sizes.pad_from = static_cast<size_t>(in.below(3) * 8);
    return sizes;
}

// The lanes draw from samplers in here, so each stays where it is.
struct Asked : Running {
    AnyKeeper keeper;
    Asked(const Input & in, int32_t n_vocab) : keeper(in, n_vocab) {}
};
using Lanes = std::vector<std::unique_ptr<Asked>>;

void begin_any(Input & in, PoolBench & bench, size_t lane, Lanes & lanes) {
    lanes[lane] = std::make_unique<Asked>(in, bench.llama.n_vocab);
    Asked & one = *lanes[lane];
    one.prompt =
        bench.lane(in.coin() ? lane : static_cast<size_t>(in.below(static_cast<int32_t>(lanes.size())))).cached();
    one.prompt.resize(one.prompt.size() - std::min<size_t>(one.prompt.size(), in.below(8)));
    for (int32_t n = 1 + in.below(20); n > 0 && one.prompt.size() + 1 < bench.llama.n_ctx; --n) {
        one.prompt.push_back(in.below(bench.llama.n_vocab));
    }
    one.sampler.seed = in.below(3);
    try {
        begin(bench, lane, one, any_speculation(in, bench.llama, one.keeper), 1 + in.below(30), in.coin());
    } catch (const Error & error) {
        CHECK_EQ(static_cast<int>(error.status), static_cast<int>(MP_ERROR_ARGUMENT));
        bench.pool.lane(lane).end();
        lanes[lane].reset();
    }
}

bool pass_any(Input & in, PoolBench & bench, Lanes & lanes) {
    std::vector<size_t> some;
    for (size_t i = 0; i < lanes.size(); ++i) {
        if (lanes[i] && in.below(4) > 0) {
            some.push_back(i);
        }
    }
    add_faults(in, bench.llama);
    const std::vector<Outcome> outcomes = bench.pool.pass(some);
    CHECK(bench.llama.rows.size() <= bench.sizes.rows);
    for (size_t i = 0; i < some.size(); ++i) {
        std::unique_ptr<Asked> & one = lanes[some[i]];
        if (outcomes[i].error) {
            CHECK(!bench.llama.decode_codes.empty() || !bench.llama.null_logits.empty());
            CHECK(!bench.lane(some[i]).goes_on());
            one.reset();
            continue;
        }
        if (!take(*one, outcomes[i])) {
            return false;
        }
        if (one->is_done()) {
            bench.pool.lane(some[i]).end();
            one.reset();
        }
    }
    check_pool(bench);
    return n_failures == 0;
}

} // namespace

void fuzz_begin() { bind_llama_api(mock_api()); }

void fuzz_one(Input & in) {
    const MockLlama model = any_cells(in);
    PoolBench bench(model, any_sizes(in, model));
    bench.pool.park(static_cast<size_t>(in.below(3) * 20000));
    Lanes lanes(bench.sizes.n_lanes);
    for (int n = 0; n < 200 && !in.done(); ++n) {
        const auto lane = static_cast<size_t>(in.below(static_cast<int32_t>(lanes.size())));
        switch (in.below(12)) {
        case 0:
            bench.pool.lane(lane).reset();
            lanes[lane].reset();
            break;
        case 1:
            bench.pool.lane(lane).end();
            lanes[lane].reset();
            break;
        case 2: bench.pool.lane(lane).forget(); break;
        case 3:
        case 4:
        case 5:
            if (!lanes[lane]) {
                begin_any(in, bench, lane, lanes);
            }
            break;
        default: break;
        }
        if (!pass_any(in, bench, lanes)) {
            return;
        }
    }
}
