// The C ABI: what is measured of a model before it generates, and the tables and texts that drafts are made of.
#include "abi_fixture.h"

#include <utility>

using namespace mp;
using namespace mp::test;

namespace {

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

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("surveys", surveys);
    run("adjacency table", adjacency_table);
    run("texts are learned", texts_are_learned);
    return finish();
}
