#include "abi.h"
#include "cpu_backend/cpu_kernels.h"
#include "survey.h"

#include <algorithm>
#include <chrono>
#include <cmath>

using namespace mp::abi;

namespace {

void require_empty(mp_session * session) { session->session.pool().require_empty(); }

void require_scale(float scale) { require(std::isfinite(scale), "the scale of embeddings must be finite"); }

// Runs one pass of the session and describes it.
template <typename Body> int run_pass(mp_session * session, mp_pass * out, Body body) {
    return guarded([&] {
        require(session != nullptr && out != nullptr, "session and pass must not be NULL");
        const auto start = std::chrono::steady_clock::now();
        *out = body(session->session);
        out->total_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    });
}

mp::Speculation from_c(const mp_speculation & in, size_t n_embd) {
    require(in.n_masks >= 0 && in.n_masks <= MP_MAX_MASKS, "n_masks is out of range");
    require(in.tree >= MP_TREE_NONE && in.tree <= MP_TREE_MIXED, "tree is not an mp_tree");
    require(in.n_cost >= 0 && (in.n_cost == 0 || in.cost != nullptr), "cost must not be NULL");
    require(in.n_widths >= 0 && in.n_widths <= in.n_masks, "a tree cannot be deeper than n_masks");
    require(in.n_masks == 0 || in.masks != nullptr, "masks must not be NULL");
    mp::Speculation out;
    out.tree = static_cast<mp_tree>(in.tree);
    out.n_masks = out.tree == MP_TREE_NONE ? 0 : in.n_masks;
    out.cost.assign(in.cost, in.cost + in.n_cost);
    require(in.change >= 0.0f, "change must not be negative");
    out.change = in.change;
    out.refine = in.refine != 0;
    out.sources = in.sources;
    out.widths.assign(in.widths, in.widths + in.n_widths);
    out.block = in.block;
    out.prune = in.prune != 0;
    out.update = in.update;
    out.guide = in.guide;
    out.guide_data = in.guide_data;
    out.masks.assign(in.masks, in.masks + out.n_masks * n_embd);
    return out;
}

// Prompts are decoded as plain decoding decodes them; attention has its bits for any number of rows. In lanes each row
// is decoded as if it were alone.
int kernels_for_prompts(const mp_session * session) {
    if (session->session.pool().is_shared()) {
        return session->kernels;
    }
    return session->kernels == 1 ? mp::cpu_kernels::as_prompt : 0;
}

} // namespace

mp_session * mp_session_init(llama_context * ctx, mp_embeddings * embeddings, float embedding_scale) {
    return guarded_new<mp_session>([&] {
        require(ctx != nullptr, "ctx must not be NULL");
        require_scale(embedding_scale);
        return new mp_session(ctx, embeddings == nullptr ? nullptr : &embeddings->rows, embedding_scale);
    });
}

void mp_session_free(mp_session * session) { delete session; }

int mp_session_shape(const mp_session * session, mp_shape * shape) {
    return guarded([&] {
        require(session != nullptr && shape != nullptr, "session and shape must not be NULL");
        *shape = session->session.shape();
    });
}

int mp_session_compare_paths(mp_session * session, const int32_t * tokens, size_t n, float scale,
                             float * largest_difference, float * deviation) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr && largest_difference != nullptr && deviation != nullptr,
                "arguments must not be NULL");
        require_scale(scale);
        require_empty(session);
        require(session->session.embeddings() != nullptr, "this session has no embeddings");
        const mp::PathsCompared result = mp::compare_paths(session->session.context(), *session->session.embeddings(),
                                                           std::vector<int32_t>(tokens, tokens + n), scale);
        *largest_difference = result.largest_difference;
        *deviation = result.deviation;
    });
}

int mp_session_set_embedding_scale(mp_session * session, float scale) {
    return guarded([&] {
        require(session != nullptr, "session must not be NULL");
        require_scale(scale);
        session->session.set_embedding_scale(scale);
    });
}

int mp_session_set_kernels(mp_session * session, int32_t use) {
    return guarded([&] {
        require(session != nullptr && use >= -1 && use <= 1, "session must not be NULL, use is 1, 0 or -1");
        session->kernels = use;
    });
}

int mp_session_begin(mp_session * session, const int32_t * prompt, size_t n_prompt, llama_sampler * sampler,
                     const mp_speculation * speculation, int32_t max_tokens, int reuse, size_t * n_reused) {
    return guarded([&] {
        require(session != nullptr && prompt != nullptr && speculation != nullptr && n_reused != nullptr,
                "arguments must not be NULL");
        require(max_tokens >= 1, "max_tokens must be at least 1");
        *n_reused = session->session.begin(std::vector<int32_t>(prompt, prompt + n_prompt), sampler,
                                           from_c(*speculation, session->session.n_embd()), max_tokens, reuse != 0);
    });
}

int mp_session_report_logprobs(mp_session * session, int32_t n_top) {
    return guarded([&] {
        require(session != nullptr, "session must not be NULL");
        session->session.report_logprobs(n_top);
    });
}

int mp_session_prefill(mp_session * session, mp_pass * pass) {
    const mp::cpu_kernels::Use use(session == nullptr ? 0 : kernels_for_prompts(session));
    return run_pass(session, pass, [](mp::Session & s) -> const mp_pass & { return s.prefill(); });
}

int mp_session_step(mp_session * session, mp_pass * pass) {
    const mp::cpu_kernels::Use use(session != nullptr ? session->kernels : 0);
    return run_pass(session, pass, [](mp::Session & s) -> const mp_pass & { return s.step(); });
}

int mp_session_totals(const mp_session * session, mp_totals * out) {
    return guarded([&] {
        require(session != nullptr && out != nullptr, "session and totals must not be NULL");
        *out = session->session.totals();
    });
}

int mp_session_time_rows(mp_session * session, int32_t n_rows, double * ms) {
    return guarded([&] {
        require(session != nullptr && ms != nullptr, "arguments must not be NULL");
        require_empty(session);
        const mp::cpu_kernels::Use use(session->kernels);
        *ms = mp::time_rows(session->session.context(), n_rows);
    });
}

int mp_session_rank_followers(mp_session * session, int32_t first, const int32_t * tokens, size_t n,
                              int32_t * followers, float * logps) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr && followers != nullptr && logps != nullptr,
                "arguments must not be NULL");
        require_empty(session);
        const mp::cpu_kernels::Use use(session->kernels);
        mp::rank_followers(session->session.context(), first, std::vector<int32_t>(tokens, tokens + n), followers,
                           logps);
    });
}

int mp_session_set_adjacency(mp_session * session, const int32_t * tokens, const float * logps) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr && logps != nullptr, "arguments must not be NULL");
        session->session.set_adjacency(tokens, logps);
    });
}

int mp_session_learn_text(mp_session * session, const int32_t * tokens, size_t n) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr, "session and tokens must not be NULL");
        session->session.learn_text(std::vector<int32_t>(tokens, tokens + n));
    });
}

int mp_session_reset(mp_session * session) {
    return guarded([&] {
        require(session != nullptr, "session must not be NULL");
        session->session.reset();
    });
}

int mp_session_forget(mp_session * session) {
    return guarded([&] {
        require(session != nullptr, "session must not be NULL");
        session->session.forget();
    });
}

int mp_session_end(mp_session * session) {
    return guarded([&] {
        require(session != nullptr, "session must not be NULL");
        session->session.end();
    });
}

size_t mp_session_n_cached(const mp_session * session) {
    return session == nullptr ? 0 : session->session.cached().size();
}

int mp_session_cached(const mp_session * session, int32_t * tokens) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr, "session and tokens must not be NULL");
        std::copy(session->session.cached().begin(), session->session.cached().end(), tokens);
    });
}

int mp_session_restore(mp_session * session, const int32_t * tokens, size_t n) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr, "session and tokens must not be NULL");
        session->session.restore(std::vector<int32_t>(tokens, tokens + n));
    });
}
