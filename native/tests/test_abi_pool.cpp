// The C functions of pools: lanes are sessions, a step says of each lane what has become of it, and wrong calls are
// refused by name.
#include "maskprobe.h"
#include "pool_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

#define CHECK_OK(call) CHECK_EQ(call, static_cast<int>(MP_OK))

void check_fails(int status, const std::string & text) {
    CHECK_EQ(status, static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK(std::string(mp_last_error()).find(text) != std::string::npos);
}

struct Call {
    MockLlama llama;
    mp_pool_sizes sizes{2, 4, 16, 8, 0};
    mp_pool * pool;
    mp_session * lanes[2];
    mp_pass passes[2];
    int32_t statuses[2];

    Call() {
        llama = shared_by_lanes(llama, PoolSizes{2, 4, 16, 8, 0}).fresh();
        pool = mp_pool_init(llama.context(), nullptr, 1.0f, &sizes);
        for (int32_t i = 0; i < 2; ++i) {
            lanes[i] = mp_pool_lane(pool, i);
        }
    }
    ~Call() {
        mp_session_free(lanes[0]);
        mp_pool_free(pool); // a lane may outlive it
        mp_session_free(lanes[1]);
    }
    Call(const Call &) = delete;
    Call & operator=(const Call &) = delete;

    void begin(int32_t lane, const Ids & prompt, int32_t max_tokens, MockSampler * sampler = nullptr) {
        const mp_speculation plain{};
        size_t n_reused = 0;
        CHECK_OK(mp_session_begin(lanes[lane], prompt.data(), prompt.size(),
                                  sampler == nullptr ? nullptr : sampler->get(), &plain, max_tokens, 1, &n_reused));
    }
    int step(const Ids & which) { return mp_pool_step(pool, which.data(), which.size(), passes, statuses); }
};

void lanes_generate() {
    Call c;
    const Ids prompts[] = {{3, 1, 4}, {5, 9, 2, 6}};
    Ids tokens[2];
    c.begin(0, prompts[0], 12);
    c.begin(1, prompts[1], 12);
    MockLlama alone = c.llama.fresh();
    alone.n_ids = 0;
    for (int n = 0; tokens[0].size() < 12 && n < 20; ++n) {
        CHECK_OK(c.step({1, 0}));
        for (int32_t i = 0; i < 2; ++i) {
            CHECK_OK(c.statuses[i]);
            Ids & mine = tokens[1 - i];
            mine.insert(mine.end(), c.passes[i].tokens, c.passes[i].tokens + c.passes[i].n_tokens);
            CHECK(c.passes[i].total_ms >= c.passes[i].decode_ms);
        }
    }
    CHECK_EQ(tokens[0], plain_decode(alone, prompts[0], 0, 12));
    CHECK_EQ(tokens[1], plain_decode(alone, prompts[1], 0, 12));
    CHECK_EQ(c.llama.n_decode_calls, size_t{12}); // for both
    // Both have ended; one goes on by itself.
    CHECK_OK(c.step({0}));
    CHECK_EQ(c.statuses[0], static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK(std::string(mp_pool_error(c.pool, 0)).find("has ended") != std::string::npos);
    CHECK_EQ(std::string(mp_pool_error(c.pool, 1)), "");
    c.begin(0, {7, 7}, 5);
    mp_pass pass;
    CHECK_OK(mp_session_prefill(c.lanes[0], &pass));
    CHECK_OK(mp_session_step(c.lanes[0], &pass));
    CHECK_OK(mp_session_end(c.lanes[0]));
    CHECK_EQ(mp_session_step(c.lanes[0], &pass), static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK_EQ(mp_session_n_cached(c.lanes[0]), size_t{3});
    mp_pool_figures figures;
    CHECK_OK(mp_pool_get_figures(c.pool, &figures));
    CHECK_EQ(figures.n_cells, int64_t{c.llama.n_ctx});
    CHECK_EQ(figures.n_used, static_cast<int64_t>(c.llama.n_used()));
    CHECK_EQ(c.llama.violations, std::vector<std::string>());
}

void failures_have_a_lane() {
    Call c;
    MockSampler nothing;
    nothing.n_allowed = 0;
    c.begin(0, {3, 1, 4}, 12, &nothing);
    c.begin(1, {3, 1, 4}, 12);
    CHECK_OK(c.step({0, 1}));
    CHECK_EQ(c.statuses[0], static_cast<int>(MP_ERROR_SAMPLING));
    CHECK(std::string(mp_pool_error(c.pool, 0)).find("no token") != std::string::npos);
    CHECK_OK(c.statuses[1]);
    CHECK_EQ(c.passes[1].n_tokens, 1);
}

void wrong_calls() {
    Call c;
    check_fails(c.step({2}), "no such lane");
    check_fails(c.step({-1}), "no such lane");
    check_fails(c.step({1, 1}), "twice");
    check_fails(mp_pool_step(nullptr, nullptr, 0, nullptr, nullptr), "NULL");
    check_fails(mp_pool_set_kernels(c.pool, 2), "use is");
    check_fails(mp_pool_set_kernels(nullptr, 1), "NULL");
    check_fails(mp_pool_get_figures(c.pool, nullptr), "NULL");
    check_fails(mp_session_end(nullptr), "NULL");
    check_fails(mp_pool_park(nullptr, 1), "NULL");
    CHECK_OK(mp_pool_park(c.pool, 1000));
    CHECK_OK(mp_pool_set_kernels(c.pool, 1));
    CHECK(mp_pool_lane(c.pool, 2) == nullptr);
    CHECK(mp_pool_lane(nullptr, 0) == nullptr);
    CHECK_EQ(std::string(mp_pool_error(c.pool, 9)), "");
    CHECK_EQ(std::string(mp_pool_error(nullptr, 0)), "");
    CHECK(mp_pool_init(c.llama.context(), nullptr, 1.0f, nullptr) == nullptr);
    for (const mp_pool_sizes & sizes :
         {mp_pool_sizes{0, 4, 16, 8, 0}, mp_pool_sizes{2, 4, 1, 8, 0}, mp_pool_sizes{2, 4, 16, 0, 0},
          mp_pool_sizes{2, 4, 16, 8, -1}, mp_pool_sizes{2, 400, 16, 8, 0}, mp_pool_sizes{3, 4, 16, 8, 0}}) {
        CHECK(mp_pool_init(c.llama.context(), nullptr, 1.0f, &sizes) == nullptr);
    }
    CHECK_OK(mp_pool_step(c.pool, c.statuses, 0, c.passes, c.statuses)); // for nobody
    mp_pool_free(nullptr);
    // Measuring needs all lanes empty.
    c.begin(1, {3, 1, 4}, 5);
    CHECK_OK(c.step({1}));
    double ms = 0.0;
    check_fails(mp_session_time_rows(c.lanes[0], 4, &ms), "empty KV cache");
    CHECK_OK(mp_session_reset(c.lanes[1]));
    CHECK_OK(mp_session_time_rows(c.lanes[0], 4, &ms));
    c.begin(0, {3, 1, 4}, 5);
    CHECK_OK(c.step({0}));
    CHECK_OK(c.statuses[0]);
    CHECK_EQ(c.llama.violations, std::vector<std::string>());
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("lanes generate", lanes_generate);
    run("failures have a lane", failures_have_a_lane);
    run("wrong calls", wrong_calls);
    return finish();
}
