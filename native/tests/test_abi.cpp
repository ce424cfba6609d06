// The C ABI: what binding accepts, what each call refuses and with which status and message, and a whole
// generation through it.
#include "maskprobe.h"

#include "cpu_backend/cpu_kernels.h"
#include "mock_binding.h"
#include "session_fixture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

using namespace mp;
using namespace mp::test;

namespace {

// The call fails with this status and leaves a message that holds the text.
void check_fails(int line, int status, mp_status expected, const std::string & text) {
    const Scope scope("line " + std::to_string(line));
    CHECK_EQ(status, static_cast<int>(expected));
    if (!CHECK(std::string(mp_last_error()).find(text) != std::string::npos)) {
        std::cerr << "    the message: " << mp_last_error() << "\n";
    }
}
#define CHECK_FAILS(expected, text, call) check_fails(__LINE__, (call), (expected), (text))
#define CHECK_OK(call) CHECK_EQ((call), static_cast<int>(MP_OK))

// --- binding ----------------------------------------------------------------------------------------

// Runs first: nothing is bound yet.
void unbound() {
    MockLlama llama;
    CHECK(mp_session_init(llama.context(), nullptr, 1.0f) == nullptr);
    CHECK(std::string(mp_last_error()).find("not bound") != std::string::npos);
    const char * path = "nowhere.gguf";
    CHECK(mp_embeddings_init(&path, 1) == nullptr);
    CHECK(std::string(mp_last_error()).find("not bound") != std::string::npos);
}

void required_functions() {
    const MockTable table;
    for (size_t i = 0; i < table.names.size(); ++i) {
        CHECK_EQ(std::string(mp_required_function(i)), std::string(table.names[i]));
    }
    CHECK(mp_required_function(table.names.size()) == nullptr);
    CHECK(mp_required_function(std::numeric_limits<size_t>::max()) == nullptr);
}

void binding() {
    for (size_t i = 0; i < MockTable().names.size(); ++i) {
        MockTable without;
        const std::string name = without.names[i];
        without.addresses[i] = nullptr;
        CHECK_FAILS(MP_ERROR_BINDING, "llama.cpp lacks " + name, without.bind());
        without.names.erase(without.names.begin() + static_cast<std::ptrdiff_t>(i));
        without.addresses.erase(without.addresses.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK_FAILS(MP_ERROR_BINDING, "llama.cpp lacks " + name, without.bind());
        CHECK_EQ(std::string(mp_last_error()), "llama.cpp lacks " + name); // that one and no other
    }
    MockTable none;
    none.names.resize(0);
    CHECK_FAILS(MP_ERROR_BINDING, "llama_decode, llama_synchronize", none.bind());
    for (size_t i = 0; i < batch_layout.size(); ++i) {
        std::vector<size_t> other = batch_layout;
        other[i] += 4;
        CHECK_FAILS(MP_ERROR_BINDING, "value " + std::to_string(i), MockTable().bind(other));
    }
    const MockTable table;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_bind(nullptr, table.addresses.data(), 1, batch_layout.data()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_bind(table.names.data(), nullptr, 1, batch_layout.data()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_bind(table.names.data(), table.addresses.data(), 1, nullptr));

    MockTable more; // functions that the core does not know are no harm, nor is their order
    more.names.insert(more.names.begin(), "llama_unheard_of");
    more.addresses.insert(more.addresses.begin(), nullptr);
    CHECK_OK(more.bind());
    MockTable half;
    half.addresses[0] = nullptr;
    CHECK(half.bind() != MP_OK);
    MockLlama llama; // the table bound before is still there
    mp_session * session = mp_session_init(llama.context(), nullptr, 1.0f);
    CHECK(session != nullptr);
    mp_session_free(session);
}

// --- sessions ---------------------------------------------------------------------------------------

// Sound arguments of a begin, for a test to spoil one by one.
struct Call {
    MockLlama llama;
    MockGguf file{llama};
    mp_embeddings * embeddings = nullptr;
    mp_session * session = nullptr;
    MockSampler sampler;
    Ids prompt{3, 1, 4, 1, 5};
    std::vector<float> masks;
    std::vector<float> free_rows = std::vector<float>(16, 1.0f);
    mp_speculation speculation{};
    size_t n_reused = 77;
    mp_pass pass{};

    explicit Call(uint32_t n_ubatch = 128, bool with_embeddings = true) {
        llama.n_ubatch = n_ubatch;
        const std::string path = file.path();
        const char * paths[] = {path.c_str()};
        embeddings = with_embeddings ? mp_embeddings_init(paths, 1) : nullptr;
        session = mp_session_init(llama.context(), embeddings, 1.0f);
        masks = mask_start(llama, MP_MAX_MASKS);
        speculation.tree = MP_TREE_STATIC;
        speculation.n_masks = 2;
        speculation.n_widths = 2;
        speculation.widths[0] = 3;
        speculation.widths[1] = 2;
        speculation.block = 18;
        speculation.update = 0.1f;
        speculation.masks = masks.data();
    }
    // A mixed tree without masks, from these sources.
    void draft_with_free_rows(int32_t sources) {
        speculation = mp_speculation{};
        speculation.tree = MP_TREE_MIXED;
        speculation.block = static_cast<int32_t>(free_rows.size());
        speculation.cost = free_rows.data();
        speculation.n_cost = static_cast<int32_t>(free_rows.size());
        speculation.sources = sources;
    }
    ~Call() {
        mp_session_free(session);
        mp_embeddings_free(embeddings);
    }
    Call(const Call &) = delete;
    Call & operator=(const Call &) = delete;

    int begin(int32_t max_tokens = 12) {
        return mp_session_begin(session, prompt.data(), prompt.size(), sampler.get(), &speculation, max_tokens, 1,
                                &n_reused);
    }
};

void whole_generation() {
    Call call;
    CHECK_OK(call.begin());
    CHECK_EQ(call.n_reused, size_t{0});
    Ids tokens;
    int64_t n_rows = 0;
    int64_t n_drafted = 0;
    double decode_ms = 0.0;
    while (tokens.size() < 12) {
        const int status =
            tokens.empty() ? mp_session_prefill(call.session, &call.pass) : mp_session_step(call.session, &call.pass);
        if (!CHECK_OK(status)) {
            break;
        }
        const mp_pass & pass = call.pass;
        CHECK_EQ(pass.n_rows, static_cast<int32_t>(call.llama.rows.size()));
        CHECK_EQ(pass.n_tokens, pass.n_accepted + 1);
        CHECK_EQ(pass.end, 0);
        CHECK(pass.decode_ms >= 0.0 && pass.total_ms >= pass.decode_ms);
        decode_ms += pass.decode_ms;
        n_rows += tokens.empty() ? 0 : pass.n_rows; // the prompt's own are not counted
        n_drafted += pass.n_drafted;
        tokens.insert(tokens.end(), pass.tokens, pass.tokens + pass.n_tokens);
    }
    CHECK(decode_ms > 0.0);
    CHECK_EQ(tokens, plain_decode(call.llama, call.prompt, 0, 12));
    CHECK_EQ(mp_session_n_cached(call.session), call.llama.n_used());
    mp_totals totals;
    CHECK_OK(mp_session_totals(call.session, &totals));
    CHECK_EQ(totals.n_rows, n_rows);
    CHECK_EQ(totals.n_drafted, n_drafted);
    CHECK(totals.decode_ms > 0.0 && totals.decode_ms < decode_ms);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_totals(nullptr, &totals));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_totals(call.session, nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "ended", mp_session_step(call.session, &call.pass));
    CHECK_OK(call.begin());
    CHECK_EQ(call.n_reused, call.prompt.size() - 1);
    Ids cached(mp_session_n_cached(call.session));
    CHECK_OK(mp_session_cached(call.session, cached.data()));
    CHECK_EQ(cached, Ids(call.prompt.begin(), call.prompt.end() - 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "reset", mp_session_restore(call.session, cached.data(), cached.size()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_restore(call.session, nullptr, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_restore(nullptr, cached.data(), cached.size()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_cached(call.session, nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_cached(nullptr, cached.data()));
    CHECK_OK(mp_session_reset(call.session));
    CHECK_EQ(mp_session_n_cached(call.session), size_t{0});
    CHECK_OK(mp_session_restore(call.session, cached.data(), cached.size()));
    CHECK_EQ(mp_session_n_cached(call.session), cached.size());
    CHECK_EQ(call.llama.violations, std::vector<std::string>());
}

struct Reported {
    Ids tokens;
    std::vector<float> logp;
    Ids top;
    std::vector<float> top_logp;
};

// A whole generation with the log-probabilities of its tokens and of the 3 best.
Reported generate_reported(Call & call) {
    Reported all;
    CHECK_OK(mp_session_report_logprobs(call.session, 3));
    CHECK_OK(call.begin());
    while (all.tokens.size() < 12) {
        const int status = all.tokens.empty() ? mp_session_prefill(call.session, &call.pass)
                                              : mp_session_step(call.session, &call.pass);
        const mp_pass & pass = call.pass;
        if (!CHECK_OK(status) || !CHECK_EQ(pass.n_top, 3) || !CHECK(pass.logp != nullptr)) {
            break;
        }
        all.tokens.insert(all.tokens.end(), pass.tokens, pass.tokens + pass.n_tokens);
        all.logp.insert(all.logp.end(), pass.logp, pass.logp + pass.n_tokens);
        all.top.insert(all.top.end(), pass.top, pass.top + 3 * pass.n_tokens);
        all.top_logp.insert(all.top_logp.end(), pass.top_logp, pass.top_logp + 3 * pass.n_tokens);
        if (call.speculation.tree == MP_TREE_NONE) { // one row, whose logits are at hand
            std::vector<float> logits = call.llama.rows.back().logits;
            double sum = 0.0;
            for (const float x : logits) {
                sum += std::exp(static_cast<double>(x));
            }
            CHECK(std::fabs(all.logp.back() - (logits[all.tokens.back()] - std::log(sum))) < 1e-5);
            std::sort(logits.rbegin(), logits.rend());
            for (size_t i = 0; i < 3; ++i) {
                CHECK(std::fabs(all.top_logp[all.top_logp.size() - 3 + i] - (logits[i] - std::log(sum))) < 1e-5);
            }
        }
    }
    return all;
}

// They are those of plain decoding, whatever was drafted.
void logprobs_are_reported() {
    Call drafted;
    Call plain;
    plain.speculation.tree = MP_TREE_NONE;
    const Reported a = generate_reported(drafted);
    const Reported b = generate_reported(plain);
    CHECK_EQ(a.tokens, b.tokens);
    CHECK_EQ(a.logp, b.logp);
    CHECK_EQ(a.top, b.top);
    CHECK_EQ(a.top_logp, b.top_logp);
    CHECK_OK(mp_session_report_logprobs(plain.session, -1));
    CHECK_OK(plain.begin());
    CHECK_OK(mp_session_prefill(plain.session, &plain.pass));
    CHECK(plain.pass.logp == nullptr);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "n_top", mp_session_report_logprobs(plain.session, -2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_report_logprobs(nullptr, 0));
}

void end_is_reported() {
    Call call;
    call.llama.eog = {plain_decode(call.llama, call.prompt, 0, 1)[0]};
    CHECK_OK(call.begin());
    CHECK_OK(mp_session_prefill(call.session, &call.pass));
    CHECK_EQ(call.pass.end, 1);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "ended", mp_session_step(call.session, &call.pass));
}

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

// --- kernels ----------------------------------------------------------------------------------------

// The kernels themselves have tests of their own; nothing is attached here.
void kernel_arguments() {
    size_t n = 0;
    while (mp_kernels_required_function(n) != nullptr) {
        ++n;
    }
    CHECK(n > 0);
    CHECK(mp_kernels_required_function(std::numeric_limits<size_t>::max()) == nullptr);
    const char * name = "ggml_op_name";
    void * address = nullptr;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_kernels_attach(nullptr, &address, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_kernels_attach(&name, nullptr, 1));
    CHECK_FAILS(MP_ERROR_BINDING, "ggml lacks", mp_kernels_attach(&name, &address, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_kernels_limit_instructions(nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "avx99", mp_kernels_limit_instructions("avx99"));
    mp_kernel kernel{};
    CHECK_FAILS(MP_ERROR_ARGUMENT, "not that many", mp_kernels_get(0, &kernel));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "not that many", mp_kernels_get(std::numeric_limits<size_t>::max(), &kernel));
    CHECK_EQ(mp_kernels_n_used(std::numeric_limits<size_t>::max()), int64_t{0});
    CHECK_FAILS(MP_ERROR_ARGUMENT, "0 or 1", mp_kernels_set_default(-1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "0 or 1", mp_kernels_set_default(2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_kernels_set_thread(-2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_kernels_set_thread(2));
    CHECK_EQ(mp_kernels_allowed(), 0u);
    CHECK_OK(mp_kernels_allow(5, 0));
    CHECK_EQ(mp_kernels_allowed(), 5u);
    CHECK_OK(mp_kernels_allow(0, 0));
    CHECK_OK(mp_kernels_limit_instructions(mp_kernels_instructions()));
    Call c;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_set_kernels(nullptr, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_session_set_kernels(c.session, 2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_session_set_kernels(c.session, -2));
}

int kernels_on_this_thread() {
    const int use = cpu_kernels::set_thread(-1);
    cpu_kernels::set_thread(use);
    return use;
}

std::vector<int> decoded_with; // by each llama_decode
int32_t (*decode_of_mock)(llama_context *, llama_batch) = nullptr;

int32_t decode_and_tell(llama_context * ctx, llama_batch batch) {
    decoded_with.push_back(kernels_on_this_thread());
    return decode_of_mock(ctx, batch);
}

// What a session asks for holds while its own passes run, but not for prompts, and never for its thread's other passes.
void sessions_choose_kernels() {
    MockTable table;
    for (size_t i = 0; i < table.names.size(); ++i) {
        if (std::string(table.names[i]) == "llama_decode") {
            decode_of_mock = reinterpret_cast<int32_t (*)(llama_context *, llama_batch)>(table.addresses[i]);
            table.addresses[i] = reinterpret_cast<void *>(decode_and_tell);
        }
    }
    CHECK_OK(table.bind());
    for (const int outside : {-1, 0, 1}) {
        for (const int wanted : {-1, 0, 1}) {
            Call c;
            CHECK_OK(mp_kernels_set_thread(outside));
            CHECK_OK(mp_session_set_kernels(c.session, wanted));
            double ms = 0.0;
            decoded_with.clear();
            CHECK_OK(mp_session_time_rows(c.session, 8, &ms));
            CHECK(!decoded_with.empty());
            CHECK_EQ(decoded_with, std::vector<int>(decoded_with.size(), wanted));
            CHECK_OK(c.begin());
            decoded_with.clear();
            CHECK_OK(mp_session_prefill(c.session, &c.pass));
            CHECK_EQ(decoded_with, std::vector<int>{wanted == 1 ? cpu_kernels::as_prompt : 0});
            CHECK_EQ(kernels_on_this_thread(), outside);
            decoded_with.clear();
            CHECK_OK(mp_session_step(c.session, &c.pass));
            CHECK_EQ(decoded_with, std::vector<int>{wanted});
            CHECK_EQ(kernels_on_this_thread(), outside);
        }
    }
    CHECK_OK(mp_kernels_set_thread(-1));
    CHECK_OK(MockTable().bind());
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

void decode_failure() {
    Call call;
    call.llama.decode_codes[2] = 2;
    CHECK_OK(call.begin());
    CHECK_OK(mp_session_prefill(call.session, &call.pass));
    CHECK_OK(mp_session_step(call.session, &call.pass));
    const size_t n_cached = mp_session_n_cached(call.session);
    CHECK_FAILS(MP_ERROR_DECODE, "aborted", mp_session_step(call.session, &call.pass));
    CHECK_EQ(mp_session_n_cached(call.session), n_cached);
    CHECK_EQ(call.llama.n_used(), n_cached);
}

// What is measured before anything is generated refuses to run over a generation's cache.
void surveys() {
    Call call;
    float difference = -1.0f;
    float deviation = -1.0f;
    CHECK_OK(mp_session_compare_paths(call.session, call.prompt.data(), 3, 1.0f, &difference, &deviation));
    CHECK_EQ(difference, 0.0f);
    CHECK(deviation > 0.0f);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "n_ubatch",
                mp_session_compare_paths(call.session, call.prompt.data(), 0, 1.0f, &difference, &deviation));
    double ms = -1.0;
    CHECK_OK(mp_session_time_rows(call.session, 8, &ms));
    CHECK(ms >= 0.0);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "n_ubatch", mp_session_time_rows(call.session, 0, &ms));
    Ids followers(3 * MP_ADJACENCY_WIDTH, -2);
    std::vector<float> logps(followers.size());
    const auto rank = [&](mp_session * session) {
        return mp_session_rank_followers(session, 9, call.prompt.data(), 3, followers.data(), logps.data());
    };
    CHECK_OK(rank(call.session));
    CHECK_EQ(followers[0], plain_decode(call.llama, {9, call.prompt[0]}, 0, 1)[0]);
    CHECK_EQ(mp_session_n_cached(call.session), size_t{0});

    CHECK_OK(call.begin());
    CHECK_OK(mp_session_prefill(call.session, &call.pass));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "empty KV cache", rank(call.session));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "empty KV cache", mp_session_time_rows(call.session, 8, &ms));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "empty KV cache",
                mp_session_compare_paths(call.session, call.prompt.data(), 3, 1.0f, &difference, &deviation));
    CHECK_EQ(mp_session_n_cached(call.session), call.llama.n_used());
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", rank(nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_time_rows(call.session, 8, nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_set_adjacency(call.session, nullptr, logps.data()));
    Call plain(128, false);
    CHECK_FAILS(MP_ERROR_ARGUMENT, "no embeddings",
                mp_session_compare_paths(plain.session, call.prompt.data(), 3, 1.0f, &difference, &deviation));
    CHECK_OK(mp_session_set_embedding_scale(call.session, 2.0f));
}

// A table of followers that tells the truth: with free rows, its drafts are accepted from the first pass on.
void adjacency_table() {
    Call call;
    call.llama.n_remembered = 1;
    Ids followers;
    std::vector<float> logps;
    for (int32_t token = 0; token < call.llama.n_vocab; ++token) {
        followers.push_back(plain_decode(call.llama, {token}, 0, 1)[0]);
        logps.push_back(-0.01f);
        followers.insert(followers.end(), MP_ADJACENCY_WIDTH - 1, -1);
        logps.insert(logps.end(), MP_ADJACENCY_WIDTH - 1, 0.0f);
    }
    CHECK_OK(mp_session_set_adjacency(call.session, followers.data(), logps.data()));
    call.draft_with_free_rows(MP_SOURCE_ADJACENCY);
    CHECK_OK(call.begin());
    CHECK_OK(mp_session_prefill(call.session, &call.pass));
    CHECK_OK(mp_session_step(call.session, &call.pass));
    CHECK(call.pass.n_accepted > 0 && call.pass.expected > 1.0f && call.pass.price > 0.0f);
    CHECK_EQ(call.pass.n_probed, 0);
}

// With free rows, what the model wrote once is drafted from the first pass on; what was forgotten is not, and a
// session's own answers count as texts too.
void texts_are_learned() {
    Call call;
    call.draft_with_free_rows(MP_SOURCE_HISTORY);
    const auto accepted_at_once = [&] {
        CHECK_OK(mp_session_reset(call.session));
        CHECK_OK(call.begin());
        CHECK_OK(mp_session_prefill(call.session, &call.pass));
        CHECK_OK(mp_session_step(call.session, &call.pass));
        return call.pass.n_accepted > 0;
    };
    CHECK(!accepted_at_once());
    CHECK_OK(mp_session_forget(call.session));

    Ids text = call.prompt;
    const Ids answer = plain_decode(call.llama, call.prompt, 0, 8);
    text.insert(text.end(), answer.begin(), answer.end());
    CHECK_OK(mp_session_learn_text(call.session, text.data(), text.size()));
    CHECK(accepted_at_once());
    CHECK_OK(mp_session_reset(call.session));
    CHECK_OK(mp_session_forget(call.session));
    CHECK(!accepted_at_once());
    for (int i = 0; i < 6; ++i) {
        CHECK_OK(mp_session_step(call.session, &call.pass));
    }
    CHECK(accepted_at_once());

    // What the user wrote is no text of the model's.
    const int32_t root = answer[0];
    Ids prompt{root, 2, root, 2, root + 1};
    CHECK_OK(mp_session_reset(call.session));
    CHECK_OK(mp_session_forget(call.session));
    std::swap(call.prompt, prompt);
    CHECK_OK(call.begin());
    CHECK_OK(mp_session_prefill(call.session, &call.pass));
    std::swap(call.prompt, prompt);
    CHECK(!accepted_at_once());
    CHECK_EQ(call.pass.n_drafted, 0);

    text.back() = call.llama.n_vocab;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "not in the vocabulary",
                mp_session_learn_text(call.session, text.data(), text.size()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_learn_text(call.session, nullptr, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_learn_text(nullptr, text.data(), 1));
}

void messages_are_kept_per_thread() {
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_reset(nullptr));
    std::string in_thread = "?";
    std::thread([&] { in_thread = mp_last_error(); }).join();
    CHECK_EQ(in_thread, "");
}

} // namespace

int main() {
    run("unbound", unbound);
    run("required functions", required_functions);
    run("binding", binding);
    run("whole generation", whole_generation);
    run("log-probabilities", logprobs_are_reported);
    run("end is reported", end_is_reported);
    run("scales", scales_are_finite);
    run("null arguments", null_arguments);
    run("kernel arguments", kernel_arguments);
    run("sessions choose kernels", sessions_choose_kernels);
    run("settings out of range", settings_out_of_range);
    run("calls out of order", calls_out_of_order);
    run("decode failure", decode_failure);
    run("surveys", surveys);
    run("adjacency table", adjacency_table);
    run("texts are learned", texts_are_learned);
    run("messages are kept per thread", messages_are_kept_per_thread);
    return finish();
}
