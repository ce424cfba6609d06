// A KV cache and the generation that runs in it: prefill, then one pass at a time, draft -> block ->
// decode -> verify -> commit. Knows the order of things and what is committed; drafts are Drafter's, rows are
// Block's, cells KvCache's. Text, sampling parameters and stop strings are the caller's.
//
// Invariant between calls: pending() holds the committed tokens that follow those in the KV cache; the last is the
// root. kv_cache.h has the others.
#pragma once

#include "context.h"
#include "drafting/drafter.h"
#include "drafting/masks.h"
#include "embeddings.h"
#include "kv_cache.h"
#include "pass_report.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mp {

class Session {
public:
    // embeddings may be null: then only plain decoding is possible.
    Session(llama_context * ctx, Embeddings * embeddings, float embedding_scale);

    void set_adjacency(const int32_t * tokens, const float * logps) { drafter_.set_adjacency(tokens, logps); }
    void set_embedding_scale(float scale) { embedding_scale_ = scale; }
    size_t n_embd() const { return embeddings_ == nullptr ? 0 : embeddings_->n_embd(); }

    // Starts a generation of at most max_tokens tokens, fewer if the context is full before. Returns how many tokens of
    // the prompt the KV cache already holds.
    size_t begin(std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation, int32_t max_tokens,
                 bool reuse);
    // From now on passes report log-probabilities of their tokens and of the n_top best; -1: none.
    void report_logprobs(int32_t n_top);
    // Both return what they did, which is valid until the next call.
    const mp_pass & prefill();
    const mp_pass & step();
    void reset();
    // The KV cache, empty before, has been given these tokens from outside, in cells of sequence 0 alone.
    void restore(std::vector<int32_t> tokens);
    // Forgets what drafts and texts have taught.
    void forget();
    // Learns from a text that the model wrote.
    void learn_text(const std::vector<int32_t> & tokens);

    mp_shape shape() const;
    mp_totals totals() const; // sums over the passes of the present generation, prompt apart
    const Context & context() const { return context_; }
    Embeddings * embeddings() const { return embeddings_; }
    const std::vector<int32_t> & cached() const { return cache_.tokens(); }
    const std::vector<int32_t> & pending() const { return pending_; }
    int32_t n_sequences() const { return cache_.n_sequences(); }

private:
    enum class Phase { idle, prefill, step };

    void check(const Speculation & speculation) const;
    void abandon(size_t n_cached);
    PlanLimits limits() const;
    void decode(Block & block);
    float * embed(const Block & block);
    std::vector<int32_t> verify(const Plan & plan, const Block & block);
    void score_masks();
    void read_masks(int32_t node, const Plan & plan, const Block & block);
    void commit(const Block & block, size_t n_on_spine);
    void commit_token(int32_t token);
    int32_t sample(const float * logits); // [n_vocab]
    int32_t draw(const float * logits);
    void report_logprobs_of(int32_t token, const float * logits);
    bool has_ended() const { return pass_.record.end != 0 || n_left_ <= 0; }
    const mp_pass & report() { return pass_.report(std::max(0, n_top_)); }

    Context context_;
    KvCache cache_;
    Drafter drafter_;
    Embeddings * embeddings_;
    float embedding_scale_;

    Phase phase_ = Phase::idle;
    llama_sampler * sampler_ = nullptr;        // null: greedy
    std::vector<llama_token_data> candidates_; // what a sampler draws from, [n_vocab]
    Masks masks_;
    int32_t n_left_ = 0; // tokens that may still be committed
    std::vector<int32_t> pending_;
    int32_t n_top_ = -1;      // as report_logprobs was told
    std::vector<float> embd_; // of the block in decode, [rows, n_embd_inp]
    PassReport pass_;
    mp_totals totals_{};
};

} // namespace mp
