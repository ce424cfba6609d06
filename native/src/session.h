// A KV cache and the generation that runs in it: prefill, then one pass at a time, draft -> block ->
// decode -> verify -> commit. Knows the order of things and what is committed; each of the arrows is a
// header of its own. Text, sampling parameters and stop strings are the caller's.
//
// Invariant between calls: pending() holds the committed tokens that follow those in the KV cache; the last is the
// root. kv_cache.h has the others.
#pragma once

#include "block.h"
#include "context.h"
#include "drafting/masks.h"
#include "drafting/planner.h"
#include "drafting/reliability.h"
#include "embeddings.h"
#include "kv_cache.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mp {

struct Speculation {
    mp_tree tree = MP_TREE_NONE;
    int32_t n_masks = 0;         // masks per node, k
    std::vector<int32_t> widths; // of a static tree
    int32_t block = 1;           // most rows of root, drafted nodes and masks
    std::vector<float> cost;     // of 1.. rows, for a mixed tree
    float change = 0.0f;         // of a pass after one of another number of rows
    bool refine = false;         // correct the costs by what passes take
    int32_t sources = 0;         // of a mixed tree, beside the masks: MP_SOURCE_*
    bool prune = true;
    float update = 0.0f;
    std::vector<float> masks; // start values, [n_masks, n_embd]
};

struct Pass {
    std::vector<int32_t> tokens; // committed
    // Where asked for: the model's log-probabilities of the tokens, and [tokens, n_top] of what it ranks highest.
    std::vector<float> logp;
    std::vector<int32_t> top;
    std::vector<float> top_logp;
    int32_t n_accepted = 0;
    int32_t n_drafted = 0;
    int32_t n_rows = 0;
    int32_t n_again = 0;
    int32_t n_kv_scans = 0;
    int32_t n_probed = 0;
    float probe_logp = 0.0f;
    float expected = 0.0f;
    float price = 0.0f;
    bool end = false;
    double decode_ms = 0.0;
};

// Sums over the passes of a generation, prompt apart.
struct Totals {
    int64_t n_drafted = 0;
    int64_t n_rows = 0;
    int64_t n_again = 0;
    int64_t n_kv_scans = 0;
    int64_t n_probed = 0;
    double probe_logp = 0.0;
    double expected = 0.0;
    double decode_ms = 0.0;
    Reliability reliability; // of mixed trees

    void add(const Pass & pass);
};

class Session {
public:
    // embeddings may be null: then only plain decoding is possible.
    Session(llama_context * ctx, Embeddings * embeddings, float embedding_scale);

    void set_adjacency(const int32_t * tokens, const float * logps) { adjacency_.set_table(tokens, logps); }
    void set_embedding_scale(float scale) { embedding_scale_ = scale; }
    size_t n_embd() const { return embeddings_ == nullptr ? 0 : embeddings_->n_embd(); }

    // Starts a generation of at most max_tokens tokens, fewer if the context is full before. Returns how many tokens of
    // the prompt the KV cache already holds.
    size_t begin(std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation, int32_t max_tokens,
                 bool reuse);
    // Passes report log-probabilities of tokens and of the n_top best, -1 = none.
    void report_logprobs(int32_t n_top);
    int32_t n_top() const { return std::max(0, n_top_); }
    const Pass & prefill();
    const Pass & step();
    void reset();
    // The KV cache, empty before, has been given these tokens from outside, in cells of sequence 0 alone.
    void restore(std::vector<int32_t> tokens);
    void forget();
    // A text that the model wrote.
    void learn_text(const std::vector<int32_t> & tokens);

    const Totals & totals() const { return totals_; } // of the present generation
    const Context & context() const { return context_; }
    Embeddings * embeddings() const { return embeddings_; }
    const std::vector<int32_t> & cached() const { return cache_.tokens(); }
    const std::vector<int32_t> & pending() const { return pending_; }
    int32_t n_sequences() const { return cache_.n_sequences(); }

private:
    enum class Phase { idle, prefill, step };

    void prepare_sources(const std::vector<int32_t> & prompt);
    void check(const Speculation & speculation) const;
    void abandon(size_t n_cached);
    Plan draft() const;
    void decode(Block & block);
    std::vector<int32_t> verify(const Plan & plan, const Block & block);
    void learn(const CandidateSet & candidates, int32_t node_token, int32_t row, int32_t actual);
    void score_probe(int32_t actual);
    void commit(const Block & block, size_t n_on_spine);
    void read_masks(int32_t node, const Plan & plan, const Block & block);
    void commit_token(int32_t token);
    int32_t sample(int32_t row);
    int32_t draw(const float * logits);
    void report(int32_t token, const float * logits);
    bool is_mixed() const { return speculation_.tree == MP_TREE_MIXED; }

    Context context_;
    KvCache cache_;
    Embeddings * embeddings_;
    float embedding_scale_;

    Phase phase_ = Phase::idle;
    llama_sampler * sampler_ = nullptr;
    std::vector<llama_token_data> candidates_; // of one draw
    Speculation speculation_;
    int32_t n_left_ = 0; // tokens that may still be committed
    Probe probe_;
    std::vector<Candidates> levels_; // of the deepest accepted node's masks: level 0 for the next root's children
    // What is learned of the model and the machine stays for the next generations, what is learned of a text as
    // long as the text goes on. It decides how fast tokens come, never which.
    NgramSource ngrams_; // its tokens: all committed ones
    AdjacencySource adjacency_;
    HistorySource history_;
    size_t written_from_ = 0; // in the tokens of ngrams_: from here on by the model, and not in the history yet
    Mixer mixer_;
    Budget budget_{{1.0f}, false};
    std::vector<float> budget_cost_; // that budget_ was made with
    std::vector<int32_t> pending_;
    int32_t n_top_ = -1;
    std::vector<float> embd_; // [rows, n_embd]
    Pass pass_;
    Totals totals_;
};

} // namespace mp
