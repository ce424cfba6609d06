// A lane as programs see it: generations one after the other, pass by pass. A session has a context for itself, or is
// one of a pool's lanes. Knows nothing that Lane and Pool do not know.
#pragma once

#include "pool.h"

#include <memory>
#include <utility>
#include <vector>

namespace mp {

class Session {
public:
    // Of a context that nobody else uses. embeddings may be null: then only plain decoding is possible.
    Session(llama_context * ctx, Embeddings * embeddings, float embedding_scale)
        : Session(std::make_shared<Pool>(ctx, embeddings, embedding_scale), 0) {}
    Session(std::shared_ptr<Pool> pool, size_t lane) : pool_(std::move(pool)), index_(lane), lane_(pool_->lane(lane)) {}

    void set_adjacency(const int32_t * tokens, const float * logps) { lane_.set_adjacency(tokens, logps); }
    void set_embedding_scale(float scale) { pool_->set_embedding_scale(scale); }
    size_t n_embd() const { return lane_.n_embd(); }

    // As Lane::begin.
    size_t begin(std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation, int32_t max_tokens,
                 bool reuse) {
        return pool_->begin(index_, std::move(prompt), sampler, std::move(speculation), max_tokens, reuse);
    }
    void report_logprobs(int32_t n_top) { lane_.report_logprobs(n_top); }
    // Both return what they did, which is valid until the next call.
    const mp_pass & prefill() { return pool_->pass_alone(index_, Lane::Phase::prefill); }
    const mp_pass & step() { return pool_->pass_alone(index_, Lane::Phase::step); }
    void reset() { lane_.reset(); }
    void end() { lane_.end(); }
    void restore(std::vector<int32_t> tokens) { lane_.restore(std::move(tokens)); }
    void forget() { lane_.forget(); }
    void learn_text(const std::vector<int32_t> & tokens) { lane_.learn_text(tokens); }

    mp_shape shape() const { return lane_.shape(); }
    mp_totals totals() const { return lane_.totals(); }
    Pool & pool() const { return *pool_; }
    const Context & context() const { return pool_->context(); }
    Embeddings * embeddings() const { return pool_->embeddings(); }
    const std::vector<int32_t> & cached() const { return std::as_const(lane_).cached(); }
    const std::vector<int32_t> & pending() const { return lane_.pending(); }
    int32_t n_sequences() const { return lane_.cache().n_sequences(); }

private:
    std::shared_ptr<Pool> pool_;
    size_t index_;
    Lane & lane_;
};

} // namespace mp
