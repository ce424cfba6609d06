// The C ABI: turns exceptions into codes and C arrays into vectors. No logic of its own.
#include "maskprobe.h"

#include "cpu_backend/cpu_kernels.h"
#include "error.h"
#include "llama_api.h"
#include "session.h"
#include "survey.h"

#include <algorithm>
#include <chrono>
#include <new>

struct mp_embeddings {
    mp::Embeddings rows;
    explicit mp_embeddings(const std::vector<std::string> & paths) : rows(paths) {}
};

struct mp_session {
    mp::Session session;
    int kernels = -1; // as mp::cpu_kernels::set_thread
    mp_session(llama_context * ctx, mp::Embeddings * embeddings, float scale) : session(ctx, embeddings, scale) {}
};

namespace {

thread_local std::string last_error;

template <typename Body> int guarded(Body body) {
    try {
        body();
        return MP_OK;
    } catch (const mp::Error & error) {
        last_error = error.what();
        return error.status;
    } catch (const std::bad_alloc &) {
        last_error = "out of memory";
        return MP_ERROR_MEMORY;
    } catch (const std::exception & error) {
        last_error = error.what();
        return MP_ERROR_ARGUMENT;
    }
}

template <typename Object, typename Body> Object * guarded_new(Body body) {
    Object * object = nullptr;
    guarded([&] { object = body(); });
    return object;
}

void require(bool condition, const char * message) {
    if (!condition) {
        throw mp::Error(MP_ERROR_ARGUMENT, message);
    }
}

void require_empty(const mp_session * session) {
    require(session->session.cached().empty(), "this needs an empty KV cache: reset the session first");
}

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
    out.masks.assign(in.masks, in.masks + out.n_masks * n_embd);
    return out;
}

} // namespace

const char * mp_last_error(void) { return last_error.c_str(); }

const char * mp_required_function(size_t index) { return mp::required_function(index); }

int mp_bind(const char * const * names, void * const * addresses, size_t n, const size_t * batch_layout) {
    return guarded([&] {
        require(names != nullptr && addresses != nullptr && batch_layout != nullptr, "arguments must not be NULL");
        mp::bind_by_name(names, addresses, n, batch_layout);
    });
}

// --- kernels ----------------------------------------------------------------------------------------

const char * mp_kernels_required_function(size_t index) { return mp::cpu_kernels::required_function(index); }

int mp_kernels_attach(const char * const * names, void * const * addresses, size_t n) {
    return guarded([&] {
        require(names != nullptr && addresses != nullptr, "arguments must not be NULL");
        mp::cpu_kernels::attach(names, addresses, n);
    });
}

const char * mp_kernels_instructions(void) { return mp::kernels::name_of(mp::cpu_kernels::instructions()); }

int mp_kernels_limit_instructions(const char * instructions) {
    return guarded([&] {
        require(instructions != nullptr, "instructions must not be NULL");
        mp::cpu_kernels::limit_instructions(instructions);
    });
}

int mp_kernels_get(size_t index, mp_kernel * out) {
    return guarded([&] {
        const mp::cpu_kernels::Entry * entry = mp::cpu_kernels::entry(index);
        require(entry != nullptr && out != nullptr, "there are not that many kernels");
        const mp::kernels::Kernel & kernel = *entry->kernel;
        *out = {entry->name,       entry->type,        entry->repacked ? 1 : 0,   kernel.k_multiple,
                kernel.n_multiple, kernel.fewest_rows, mp::cpu_kernels::most_rows};
    });
}

int mp_kernels_allow(uint32_t kernels, uint32_t for_prompts) {
    return guarded([&] { mp::cpu_kernels::allow(kernels, for_prompts); });
}

uint32_t mp_kernels_allowed(void) { return mp::cpu_kernels::allowed(); }

int mp_kernels_set_default(int32_t use) {
    return guarded([&] {
        require(use == 0 || use == 1, "use is 0 or 1");
        mp::cpu_kernels::set_default(use == 1);
    });
}

int mp_kernels_set_thread(int32_t use) {
    return guarded([&] {
        require(use >= -1 && use <= 1, "use is 1, 0 or -1");
        mp::cpu_kernels::set_thread(use);
    });
}

int64_t mp_kernels_n_used(size_t index) { return mp::cpu_kernels::n_used(index); }

int mp_session_set_kernels(mp_session * session, int32_t use) {
    return guarded([&] {
        require(session != nullptr && use >= -1 && use <= 1, "session must not be NULL, use is 1, 0 or -1");
        session->kernels = use;
    });
}

// --- embeddings -------------------------------------------------------------------------------------

mp_embeddings * mp_embeddings_init(const char * const * paths, size_t n_paths) {
    return guarded_new<mp_embeddings>([&] {
        require(paths != nullptr, "paths must not be NULL");
        return new mp_embeddings(std::vector<std::string>(paths, paths + n_paths));
    });
}

void mp_embeddings_free(mp_embeddings * embeddings) { delete embeddings; }

int32_t mp_embeddings_n_embd(const mp_embeddings * embeddings) {
    return embeddings == nullptr ? 0 : embeddings->rows.n_embd();
}

int32_t mp_embeddings_n_vocab(const mp_embeddings * embeddings) {
    return embeddings == nullptr ? 0 : embeddings->rows.n_vocab();
}

int mp_embeddings_rows(mp_embeddings * embeddings, const int32_t * tokens, size_t n, float * rows) {
    return guarded([&] {
        require(embeddings != nullptr && tokens != nullptr && rows != nullptr, "arguments must not be NULL");
        embeddings->rows.rows(tokens, n, rows);
    });
}

int mp_embeddings_accumulate(mp_embeddings * embeddings, const int32_t * tokens, size_t n, double * sum,
                             double * sum_of_squares) {
    return guarded([&] {
        require(embeddings != nullptr && tokens != nullptr && sum != nullptr && sum_of_squares != nullptr,
                "arguments must not be NULL");
        std::vector<float> row(embeddings->rows.n_embd());
        for (size_t i = 0; i < n; ++i) {
            embeddings->rows.rows(tokens + i, 1, row.data());
            for (size_t j = 0; j < row.size(); ++j) {
                sum[j] += row[j];
                sum_of_squares[j] += static_cast<double>(row[j]) * row[j];
            }
        }
    });
}

// --- session ----------------------------------------------------------------------------------------

mp_session * mp_session_init(llama_context * ctx, mp_embeddings * embeddings, float embedding_scale) {
    return guarded_new<mp_session>([&] {
        require(ctx != nullptr, "ctx must not be NULL");
        return new mp_session(ctx, embeddings == nullptr ? nullptr : &embeddings->rows, embedding_scale);
    });
}

void mp_session_free(mp_session * session) { delete session; }

int mp_session_compare_paths(mp_session * session, const int32_t * tokens, size_t n, float scale,
                             float * largest_difference, float * deviation) {
    return guarded([&] {
        require(session != nullptr && tokens != nullptr && largest_difference != nullptr && deviation != nullptr,
                "arguments must not be NULL");
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
        session->session.set_embedding_scale(scale);
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
    // Prompts are decoded as plain decoding decodes them; attention has its bits for any number of rows.
    const bool ours = session != nullptr && session->kernels == 1;
    const mp::cpu_kernels::Use use(ours ? mp::cpu_kernels::as_prompt : 0);
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
