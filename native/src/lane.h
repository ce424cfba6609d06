// A lane: one generation after the other in a KV cache of its own, which is part of a context that others may use too.
// Knows what is committed and the order of things in a pass: lay out rows, have them decoded by someone else, verify,
// commit. Drafts are Drafter's, rows are Block's, cells KvCache's; which lanes share a pass and how many rows each gets
// is Pool's. Text, sampling parameters and stop strings are the caller's.
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
#include <memory>
#include <optional>
#include <vector>

namespace mp {

class Lane {
public:
    enum class Phase { idle, prefill, step };

    // embeddings may be null: then only plain decoding is possible.
    Lane(std::shared_ptr<Cells> cells, size_t index, std::shared_ptr<Learned> learned, Embeddings * embeddings);

    // What a generation begins with besides its prompt.
    struct Start {
        bool reuse;                      // what the KV cache holds of the prompt, all but its last token
        const KvCache * other = nullptr; // or what this one of another lane does, which is more; null: none
        bool alone = true;               // no other lane is in a generation
    };
    // Starts a generation of at most max_tokens tokens, fewer if the context is full before. Returns how many tokens of
    // the prompt the KV cache already holds.
    size_t begin(std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation, int32_t max_tokens,
                 const Start & start);
    // From now on passes report log-probabilities of their tokens and of the n_top best; -1: none.
    void report_logprobs(int32_t n_top);
    void reset();
    // Ends the generation and keeps the cells for the next.
    void end() { phase_ = Phase::idle; }
    // The KV cache, empty before, has been given these tokens from outside, in cells of its first sequence alone.
    void restore(std::vector<int32_t> tokens);
    // Forgets what drafts and texts have taught.
    void forget();
    // Learns from a text that the model wrote.
    void learn_text(const std::vector<int32_t> & tokens);
    void set_adjacency(const int32_t * tokens, const float * logps) { drafter_.set_adjacency(tokens, logps); }

    // --- a pass, in this order -------------------------------------------------------------------

    Phase phase() const { return phase_; }
    // Throws Error (MP_ERROR_ARGUMENT) if there is no generation that goes on.
    void check_goes_on() const;
    // Whether there is one.
    bool goes_on() const { return phase_ == Phase::prefill || (phase_ == Phase::step && !has_ended()); }
    // Nothing has been done in this one yet.
    void start_pass();
    // Lays out the next n pending tokens without drafts: a piece of the prompt, or of tokens to be decoded again.
    void lay_out_piece(size_t n);
    // Or else all of them and drafts. What drafts may be like, then how the drafter makes a plan of it.
    PlanLimits limits() const;
    const Drafter & drafter() const { return drafter_; }
    Market & market() { return drafter_.market(); }
    void lay_out(Plan plan);
    Block & block() { return block_; }
    const Block & block() const { return block_; }
    // The chain laid out gets rows that nobody looks at, until it has so many.
    void fill(size_t n_rows) { block_.fill(n_rows); }
    // Writes the block's rows as embeddings, [rows, n_embd_inp].
    void embed(float * out) const;
    // The block was decoded: its rows are those from first_row on, is_last as of KvCache::commit. Verifies and commits.
    // If that fails, the lane is abandoned.
    void take(size_t first_row, double decode_ms, bool is_last);
    // Decoding it has failed: takes back what is left of it in the KV cache. It may be decoded once more.
    void undo() { cache_.abandon(n_cached_); }
    // Ends the generation after a failure: back to the committed tokens that were in the KV cache before the pass.
    void abandon(bool is_last);
    // What the pass did; valid until the next one.
    const mp_pass & report() { return pass_.report(std::max(0, n_top_)); }

    // --- its cells -------------------------------------------------------------------------------

    KvCache & cache() { return cache_; }
    const KvCache & cache() const { return cache_; }
    // Gives its cells up; in a generation the tokens are decoded again.
    void leave_cells();
    // Its cells have been filled with the beginning of what is pending: that need not be decoded.
    void skip_cached();
    // Someone else has emptied them: puts back what they held, of KvCache::save, or has the tokens decoded again.
    void refill_cells(const std::vector<uint8_t> & state);
    // Tokens that it holds or that its prompt will, and those that are pending.
    size_t n_wanted() const { return cache_.size() + pending_.size(); }

    mp_shape shape() const;
    mp_totals totals() const; // sums over the passes of the present generation, prompt apart
    size_t n_embd() const { return embeddings_ == nullptr ? 0 : embeddings_->n_embd(); }
    const std::vector<int32_t> & cached() const { return cache_.tokens(); }
    const std::vector<int32_t> & pending() const { return pending_; }

private:
    void check(const Speculation & speculation) const;
    void decode_again(const std::vector<int32_t> & tokens);
    void take_piece(int32_t first_row);
    void take_plan(int32_t first_row);
    std::vector<int32_t> verify(int32_t first_row);
    void score_masks();
    void read_masks(int32_t node, int32_t first_row);
    void commit(size_t n_on_spine);
    void commit_token(int32_t token);
    int32_t sample(const float * logits); // [n_vocab]
    int32_t draw(const float * logits);
    void report_logprobs_of(int32_t token, const float * logits);
    bool has_ended() const { return has_met_end_ || n_left_ <= 0; }

    Context context_;
    KvCache cache_;
    Drafter drafter_;
    Embeddings * embeddings_;
    Phase phase_ = Phase::idle;
    llama_sampler * sampler_ = nullptr;        // null: greedy
    std::vector<llama_token_data> candidates_; // what a sampler draws from, [n_vocab]
    Masks masks_;
    int32_t n_left_ = 0; // tokens that may still be committed
    bool has_met_end_ = false;
    std::vector<int32_t> pending_;
    int32_t n_top_ = -1; // as report_logprobs was told
    PassReport pass_;
    mp_totals totals_{};

    // Of the present pass.
    Block block_;
    std::optional<Plan> plan_; // none: a piece
    size_t n_cached_ = 0;      // tokens in the KV cache before it
    int64_t n_scans_ = 0;      // scans before it
    bool is_last_ = true;
};

} // namespace mp
