// The C functions in any order, with any numbers and missing pointers; arrays are as long as they say. Each does what
// it is for or says why not, what it hands out can be read, and the KV cache holds as many tokens as the session says.
#include "keeper.h"
#include "maskprobe.h"
#include "mock_binding.h"
#include "model.h"
#include "session_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

struct Caller {
    MockLlama llama;
    MockGguf file;
    mp_embeddings * embeddings = nullptr;
    mp_session * session = nullptr;
    MockSampler sampler;
    AnyKeeper keeper;

    Caller(const MockLlama & model, const AnyKeeper & any, bool with_embeddings)
        : llama(model.fresh()), file(llama), keeper(any) {
        const std::string path = file.path();
        const char * paths[] = {path.c_str()};
        embeddings = with_embeddings ? mp_embeddings_init(paths, 1) : nullptr;
        session = mp_session_init(llama.context(), embeddings, llama.embedding_scale);
    }
    ~Caller() {
        mp_session_free(session);
        mp_embeddings_free(embeddings);
    }
    Caller(const Caller &) = delete;
    Caller & operator=(const Caller &) = delete;
};

bool is_done(int status) {
    if (status == MP_OK) {
        return true;
    }
    CHECK(status == MP_ERROR_ARGUMENT || status == MP_ERROR_DECODE || status == MP_ERROR_SAMPLING);
    CHECK(*mp_last_error() != '\0');
    return false;
}

// One of them, now and then, is in no vocabulary.
void spoil(Input & in, const MockLlama & llama, Ids & tokens) {
    if (!tokens.empty() && in.rarely(8)) {
        const int32_t outside[] = {-2, llama.n_vocab, static_cast<int32_t>(in.number())};
        const int32_t token = outside[in.below(3)];
        tokens[in.below(static_cast<int32_t>(tokens.size()))] = token;
    }
}

Ids any_tokens(Input & in, const MockLlama & llama) {
    Ids tokens = in.tokens(in.below(static_cast<int32_t>(llama.n_ctx) + 2), llama.n_vocab);
    spoil(in, llama, tokens);
    return tokens;
}

// Nothing, now and then, in place of an array. In a call of its own: the order of arguments is the compiler's.
template <typename T> T * some(Input & in, std::vector<T> & values) { return in.rarely(16) ? nullptr : values.data(); }

int begin(Caller & c, Input & in) {
    Ids prompt = any_tokens(in, c.llama);
    if (prompt.size() > mp_session_n_cached(c.session) && in.coin()) {
        mp_session_cached(c.session, prompt.data()); // it goes on where the last one stopped
    }
    prompt.reserve(1); // a pointer, if to nothing
    mp_speculation speculation{};
    speculation.tree = in.rarely(16) ? static_cast<int32_t>(in.number()) : in.below(4);
    speculation.n_masks = in.rarely(16) ? static_cast<int32_t>(in.number()) : in.below(MP_MAX_MASKS + 1);
    speculation.n_widths = in.rarely(16) ? static_cast<int32_t>(in.number())
                                         : in.below(1 + std::clamp(speculation.n_masks, 0, MP_MAX_MASKS));
    for (int32_t & width : speculation.widths) {
        width = in.rarely(16) ? static_cast<int32_t>(in.number()) : 1 + in.below(4);
    }
    speculation.block = in.rarely(16) ? static_cast<int32_t>(in.number()) : in.below(40);
    std::vector<float> cost(in.below(40));
    for (float & x : cost) {
        x = in.rarely(16) ? in.any_float() : 1.0f + static_cast<float>(in.below(16));
    }
    speculation.cost = some(in, cost);
    speculation.n_cost = in.rarely(32) ? -in.below(9) : static_cast<int32_t>(cost.size());
    speculation.sources = in.rarely(16) ? static_cast<int32_t>(in.number()) : in.below(4);
    speculation.refine = in.coin();
    speculation.prune = in.coin();
    speculation.update = in.rarely(8) ? in.any_float() : 0.5f;
    speculation.guide = c.keeper.guide();
    speculation.guide_data = &c.keeper;
    std::vector<float> masks = mask_start(c.llama, MP_MAX_MASKS);
    speculation.masks = some(in, masks);
    const int32_t max_tokens = in.rarely(8) ? static_cast<int32_t>(in.number()) : 1 + in.below(30);
    c.sampler.seed = in.below(3);
    size_t n_reused = 0;
    const int32_t * ids = some(in, prompt);
    llama_sampler * sampler = in.coin() ? c.sampler.get() : nullptr;
    const mp_speculation * settings = in.rarely(32) ? nullptr : &speculation;
    const bool reuse = in.coin();
    size_t * reused = in.rarely(32) ? nullptr : &n_reused;
    const int status = mp_session_begin(c.session, ids, prompt.size(), sampler, settings, max_tokens, reuse, reused);
    if (status == MP_OK) {
        CHECK_EQ(n_reused, mp_session_n_cached(c.session));
        add_faults(in, c.llama);
    }
    return status;
}

void read_pass(const mp_pass & pass, const MockLlama & llama) {
    CHECK(pass.n_tokens >= 0 && pass.n_accepted <= pass.n_drafted && pass.n_top >= 0);
    for (int32_t i = 0; i < pass.n_tokens; ++i) {
        CHECK(pass.tokens[i] >= 0 && pass.tokens[i] < llama.n_vocab);
        CHECK(pass.logp == nullptr || !(pass.logp[i] > 0.0f)); // NaN where logits are
        for (int32_t j = i * pass.n_top; j < (i + 1) * pass.n_top; ++j) {
            CHECK(pass.top[j] >= -1 && pass.top[j] < llama.n_vocab);
            CHECK(!(pass.top_logp[j] > 0.0f));
        }
    }
}

int run_pass(Caller & c, Input & in) {
    mp_pass pass{};
    mp_pass * out = in.rarely(64) ? nullptr : &pass;
    const int status = in.coin() ? mp_session_step(c.session, out) : mp_session_prefill(c.session, out);
    if (status == MP_OK) {
        read_pass(pass, c.llama);
    }
    return status;
}

int survey(Caller & c, Input & in) {
    Ids tokens = any_tokens(in, c.llama);
    switch (in.below(3)) {
    case 0: {
        float difference = 0.0f;
        float deviation = 0.0f;
        const int32_t * ids = some(in, tokens);
        const float scale = in.some_float();
        return mp_session_compare_paths(c.session, ids, tokens.size(), scale, &difference,
                                        in.rarely(16) ? nullptr : &deviation);
    }
    case 1: {
        double ms = 0.0;
        const int32_t n_rows = static_cast<int32_t>(in.number());
        return mp_session_time_rows(c.session, n_rows, in.rarely(16) ? nullptr : &ms);
    }
    default: {
        Ids followers(tokens.size() * MP_ADJACENCY_WIDTH);
        std::vector<float> logps(followers.size());
        const int32_t first = in.coin() ? -1 : static_cast<int32_t>(in.number());
        const int32_t * ids = some(in, tokens);
        int32_t * ranked = some(in, followers);
        return mp_session_rank_followers(c.session, first, ids, tokens.size(), ranked, some(in, logps));
    }
    }
}

int read_rows(Caller & c, Input & in) {
    Ids tokens = any_tokens(in, c.llama);
    const size_t n_embd = static_cast<size_t>(c.llama.n_embd);
    if (in.coin()) {
        std::vector<float> rows(tokens.size() * n_embd);
        const int32_t * ids = some(in, tokens);
        return mp_embeddings_rows(c.embeddings, ids, tokens.size(), some(in, rows));
    }
    std::vector<double> sums(2 * n_embd);
    const int32_t * ids = some(in, tokens);
    return mp_embeddings_accumulate(c.embeddings, ids, tokens.size(), some(in, sums), sums.data() + n_embd);
}

int set_table(Caller & c, Input & in) {
    Ids tokens(static_cast<size_t>(c.llama.n_vocab) * MP_ADJACENCY_WIDTH, -1);
    std::vector<float> logps(tokens.size(), -1.0f);
    for (int32_t i = in.below(40); i > 0; --i) {
        const size_t at = in.below(static_cast<int32_t>(tokens.size()));
        tokens[at] = in.below(c.llama.n_vocab + 1) - 1;
        logps[at] = in.some_float();
    }
    spoil(in, c.llama, tokens);
    const int32_t * ids = some(in, tokens);
    const int status = mp_session_set_adjacency(c.session, ids, some(in, logps));
    CHECK(status != MP_OK || (*std::min_element(tokens.begin(), tokens.end()) >= -1 &&
                              *std::max_element(tokens.begin(), tokens.end()) < c.llama.n_vocab));
    return status;
}

// Tokens that are nowhere, too many or of no vocabulary are refused; none at all is what an empty cache holds.
int restore(Caller & c, Input & in) {
    Ids tokens(in.coin() ? 0 : 1 + in.below(static_cast<int32_t>(c.llama.n_ctx)));
    if (!tokens.empty()) {
        tokens.back() = -1 - in.below(9);
    }
    tokens.reserve(1);
    const int status = mp_session_restore(c.session, some(in, tokens), tokens.size());
    CHECK(status != MP_OK || tokens.empty());
    return status;
}

int learn_text(Caller & c, Input & in) {
    Ids text = any_tokens(in, c.llama);
    const int status = mp_session_learn_text(c.session, some(in, text), text.size());
    CHECK(status != MP_OK ||
          std::all_of(text.begin(), text.end(), [&](int32_t token) { return token >= 0 && token < c.llama.n_vocab; }));
    return status;
}

int call(Caller & c, Input & in) {
    switch (in.below(17)) {
    case 0:
    case 1: return begin(c, in);
    case 2: return survey(c, in);
    case 3: return read_rows(c, in);
    case 4: return set_table(c, in);
    case 5: return restore(c, in);
    case 6: return mp_session_report_logprobs(c.session, static_cast<int32_t>(in.number()) - 1);
    case 7: return mp_session_set_embedding_scale(c.session, in.some_float());
    case 8: return in.coin() ? mp_session_reset(c.session) : mp_session_forget(c.session);
    case 9: {
        mp_totals totals{};
        return mp_session_totals(c.session, in.rarely(16) ? nullptr : &totals);
    }
    case 10: {
        Ids cached(mp_session_n_cached(c.session));
        return mp_session_cached(c.session, cached.data());
    }
    case 11: return learn_text(c, in);
    case 12: return mp_session_set_kernels(c.session, in.below(5) - 2);
    default: return run_pass(c, in);
    }
}

} // namespace

void fuzz_begin() { CHECK_EQ(MockTable().bind(), static_cast<int>(MP_OK)); }

void fuzz_one(Input & in) {
    const MockLlama model = any_model(in);
    Caller caller(model, AnyKeeper(in, model.n_vocab), !in.rarely(8));
    for (int32_t i = 0; i < 60 && !in.done() && n_failures == 0; ++i) {
        is_done(call(caller, in));
        CHECK_EQ(mp_session_n_cached(caller.session), caller.llama.n_used());
        for (const std::string & violation : caller.llama.violations) {
            CHECK_EQ(violation.substr(0, 13), "invalid token"); // which llama.cpp refuses; all else would be ours
        }
    }
}
