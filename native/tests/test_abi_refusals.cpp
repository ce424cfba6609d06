// The C ABI: what each call refuses, with which status and message, and that the session stays as it was.
#include "abi_fixture.h"

#include <cmath>
#include <functional>
#include <limits>
#include <thread>

using namespace mp;
using namespace mp::test;

namespace {

// An infinite scale would make numbers of the zeros that may stand behind an embedding.
void scales_are_finite() {
    Call c;
    const int32_t * prompt = c.prompt.data();
    float x = 0.0f;
    for (const float scale : {INFINITY, -INFINITY, NAN}) {
        CHECK(mp_session_init(c.llama.context(), nullptr, scale) == nullptr);
        CHECK_FAILS(MP_ERROR_ARGUMENT, "finite", mp_session_set_embedding_scale(c.session, scale));
        CHECK_FAILS(MP_ERROR_ARGUMENT, "finite", mp_session_compare_paths(c.session, prompt, 1, scale, &x, &x));
    }
}

void null_arguments() {
    Call c;
    const auto begin = [&](mp_session * session, const int32_t * prompt, llama_sampler * sampler,
                           const mp_speculation * speculation, size_t * n_reused) {
        return mp_session_begin(session, prompt, c.prompt.size(), sampler, speculation, 12, 1, n_reused);
    };
    const int32_t * prompt = c.prompt.data();
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", begin(nullptr, prompt, c.sampler.get(), &c.speculation, &c.n_reused));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", begin(c.session, nullptr, c.sampler.get(), &c.speculation, &c.n_reused));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", begin(c.session, prompt, c.sampler.get(), nullptr, &c.n_reused));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", begin(c.session, prompt, c.sampler.get(), &c.speculation, nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_prefill(nullptr, &c.pass));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_prefill(c.session, nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_step(nullptr, &c.pass));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_reset(nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_set_embedding_scale(nullptr, 1.0f));
    float x = 0.0f;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_compare_paths(nullptr, prompt, 1, 1.0f, &x, &x));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_compare_paths(c.session, nullptr, 1, 1.0f, &x, &x));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_compare_paths(c.session, prompt, 1, 1.0f, nullptr, &x));
    CHECK(mp_session_init(nullptr, nullptr, 1.0f) == nullptr);
    MockLlama encoder;
    encoder.has_memory = false;
    CHECK(mp_session_init(encoder.context(), nullptr, 1.0f) == nullptr);
    CHECK(std::string(mp_last_error()).find("KV cache") != std::string::npos);
    mp_session_free(nullptr);
}

void settings_out_of_range() {
    const auto refused = [](int line, const std::string & text, const std::function<void(Call &)> & spoil,
                            uint32_t n_ubatch = 128) {
        Call call(n_ubatch);
        spoil(call);
        check_fails(line, call.begin(), MP_ERROR_ARGUMENT, text);
        CHECK_EQ(call.llama.n_decode_calls, size_t{0});
    };
    refused(__LINE__, "prompt is empty", [](Call & c) { c.prompt.reserve(1), c.prompt.clear(); });
    refused(__LINE__, "leaves no room in a context of 128", [](Call & c) { c.prompt.assign(128, 1); });
    refused(__LINE__, "leaves no room", [](Call & c) { c.prompt.assign(500, 1); });
    refused(__LINE__, "n_masks", [](Call & c) { c.speculation.n_masks = -1; });
    refused(__LINE__, "n_masks", [](Call & c) { c.speculation.n_masks = MP_MAX_MASKS + 1; });
    refused(__LINE__, "deeper than n_masks", [](Call & c) { c.speculation.n_widths = 3; });
    refused(__LINE__, "deeper than n_masks", [](Call & c) { c.speculation.n_widths = -1; });
    refused(__LINE__, "masks must not be NULL", [](Call & c) { c.speculation.masks = nullptr; });
    refused(__LINE__, "too small", [](Call & c) { c.speculation.block = 2; });
    refused(__LINE__, "too small", [](Call & c) { c.speculation.block = -5; });
    refused(__LINE__, "does not fit n_ubatch = 17", [](Call &) {}, 17);
    refused(__LINE__, "more leaves than the 256 sequences", [](Call & c) { c.speculation.block = 3 * 257; }, 1024);
    refused(__LINE__, "more leaves than the 5 sequences", [](Call & c) { c.llama.n_seq_max = 5; });
    refused(__LINE__, "mp_tree", [](Call & c) { c.speculation.tree = -1; });
    refused(__LINE__, "mp_tree", [](Call & c) { c.speculation.tree = 4; });
    refused(__LINE__, "at least one mask", [](Call & c) { c.speculation.n_masks = c.speculation.n_widths = 0; });
    const auto with_cost = [](std::vector<float> cost) {
        return [cost](Call & c) {
            c.speculation.tree = MP_TREE_MIXED;
            c.speculation.cost = cost.data();
            c.speculation.n_cost = static_cast<int32_t>(cost.size());
        };
    };
    refused(__LINE__, "needs the cost", with_cost({}));
    refused(__LINE__, "positive and finite", with_cost({1.0f, 0.0f}));
    refused(__LINE__, "positive and finite", with_cost({1.0f, -1.0f}));
    refused(__LINE__, "positive and finite", with_cost({std::numeric_limits<float>::quiet_NaN()}));
    refused(__LINE__, "cost must not be NULL", [](Call & c) { c.speculation.n_cost = 3; });
    const auto with_value = [](float x, size_t at) { return [=](Call & c) { c.masks[at] = x; }; };
    refused(__LINE__, "not finite", with_value(std::numeric_limits<float>::quiet_NaN(), 0));
    refused(__LINE__, "not finite", with_value(std::numeric_limits<float>::infinity(), 7)); // the last one in use
    refused(__LINE__, "not finite", with_value(-std::numeric_limits<float>::infinity(), 3));

    Call beyond; // masks that are not in use are not looked at
    beyond.masks[8] = std::numeric_limits<float>::quiet_NaN();
    CHECK_OK(beyond.begin());
    Call limits(1024);
    limits.speculation.block = 3 * 256 + 2;
    CHECK_OK(limits.begin());
    Call context;
    context.prompt.assign(127, 1);
    CHECK_OK(context.begin());
    CHECK_FAILS(MP_ERROR_ARGUMENT, "max_tokens", context.begin(0));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "max_tokens", context.begin(-1));
    Call plain(128, false);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "no embeddings", plain.begin());
    plain.speculation = mp_speculation{};
    CHECK_OK(plain.begin());
}

void calls_out_of_order() {
    Call call;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "begin", mp_session_prefill(call.session, &call.pass));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "prompt", mp_session_step(call.session, &call.pass));
    CHECK_OK(call.begin());
    CHECK_FAILS(MP_ERROR_ARGUMENT, "prompt", mp_session_step(call.session, &call.pass));
    CHECK_OK(mp_session_prefill(call.session, &call.pass));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "begin", mp_session_prefill(call.session, &call.pass));
    CHECK_OK(mp_session_step(call.session, &call.pass));
    call.speculation.block = 1; // a begin that is refused leaves the cache alone
    const size_t n_cached = mp_session_n_cached(call.session);
    CHECK(call.begin() != MP_OK);
    CHECK_EQ(mp_session_n_cached(call.session), n_cached);
    CHECK_EQ(call.llama.n_used(), n_cached);
    CHECK_OK(mp_session_reset(call.session));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "prompt", mp_session_step(call.session, &call.pass));
}

void messages_are_kept_per_thread() {
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_reset(nullptr));
    std::string in_thread = "?";
    std::thread([&] { in_thread = mp_last_error(); }).join();
    CHECK_EQ(in_thread, "");
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("scales", scales_are_finite);
    run("null arguments", null_arguments);
    run("settings out of range", settings_out_of_range);
    run("calls out of order", calls_out_of_order);
    run("messages are kept per thread", messages_are_kept_per_thread);
    return finish();
}
