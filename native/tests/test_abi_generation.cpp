// The C ABI: whole generations through it, with log-probabilities, an end token, or a decode that fails.
#include "abi_fixture.h"

#include <algorithm>
#include <cmath>

using namespace mp;
using namespace mp::test;

namespace {

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

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("whole generation", whole_generation);
    run("log-probabilities", logprobs_are_reported);
    run("end is reported", end_is_reported);
    run("decode failure", decode_failure);
    return finish();
}
