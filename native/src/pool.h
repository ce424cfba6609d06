// Lanes in one context, whose rows go through llama_decode together: which lanes take part in a pass, and what becomes
// of them when it fails. Keeps room in the memory. How many rows each gets is said in parts.h; what the rows are, and
// what is made of their logits, is Lane's.
//
// One lane alone has the whole context and passes as large as it likes. Several share passes of at most so many rows
// that each is computed as if it were alone. Where lanes have recurrent states, a pass has a llama_decode for each
// number of rows (parts.h); if one fails, the lanes wait and decode their tokens again.
#pragma once

#include "parts.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace mp {

struct PoolSizes {
    size_t n_lanes;
    size_t n_ids;    // sequences of each lane: most leaves of a block
    size_t rows;     // most rows of a pass
    size_t piece;    // rows that a pass with pieces of prompts should have
    size_t pad_from; // a pass of one row gets one beside it when more cells are in use, if ggml attends; 0: never
};

class Pool {
public:
    // Of one lane. embeddings may be null: then only plain decoding is possible.
    Pool(llama_context * ctx, Embeddings * embeddings, float embedding_scale);
    // Of lanes that share cells; as Cells, throws Error (MP_ERROR_ARGUMENT) if the context does not fit.
    Pool(llama_context * ctx, Embeddings * embeddings, float embedding_scale, const PoolSizes & sizes);
    Pool(const Pool &) = delete;
    Pool & operator=(const Pool &) = delete;

    Lane & lane(size_t i) { return *lanes_.at(i); }
    size_t n_lanes() const { return lanes_.size(); }
    const Context & context() const { return cells_->context(); }
    const Cells & cells() const { return *cells_; }
    Embeddings * embeddings() const { return embeddings_; }
    void set_embedding_scale(float scale) { embedding_scale_ = scale; }
    // Texts that leave the cells are kept in memory, up to so many bytes; none at first.
    void park(size_t n_bytes) { parking_.allow(n_bytes); }
    const Parking & parking() const { return parking_; }
    int64_t n_compactions() const { return n_compactions_; }
    bool is_shared() const { return cells_->are_shared(); }
    // Throws Error (MP_ERROR_ARGUMENT) unless all lanes are empty; then the whole memory is.
    void require_empty();

    // Starts a generation in a lane, as Lane::begin. With reuse, of what any lane's cells hold.
    size_t begin(size_t lane, std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation,
                 int32_t max_tokens, bool reuse);
    // One pass for these lanes, each of them once: one llama_decode, and one for each lane if that fails. A lane's
    // failure is no other lane's.
    std::vector<Outcome> pass(const std::vector<size_t> & lanes);
    // A pass for one lane, which must be in this phase. Throws what has failed.
    const mp_pass & pass_alone(size_t lane, Lane::Phase phase);

private:
    bool has_states() const { return context().rewind() != Rewind::cells; }
    void add_lanes();
    Parts take_part(const std::vector<size_t> & lanes, std::vector<Outcome> & outcomes);
    bool has_room_for(size_t lane) const;
    bool make_room(const std::vector<size_t> & kept, size_t n_cells);
    Lane * find_worst(const std::vector<size_t> & kept);
    void vacate(Lane & lane);
    void unpark(size_t lane, const std::vector<int32_t> & text, size_t n_common);
    void compact();
    float * embed(Parts & parts);
    bool decode(Parts & parts, float * embd);
    double decode_rows(Parts & parts, float * embd);
    bool needs_padding(const Parts & parts) const;
    void start_over(Parts & parts);
    void take(Parts & parts, double decode_ms);

    Embeddings * embeddings_;
    float embedding_scale_;
    std::shared_ptr<Cells> cells_;
    PoolSizes sizes_;
    std::shared_ptr<Learned> learned_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    std::vector<uint64_t> begun_;  // of each lane: when its latest generation began
    std::vector<bool> goes_alone_; // and whether it is decoded by itself, as what it was decoded with has failed
    uint64_t n_begun_ = 0;
    int64_t n_compactions_ = 0;
    Parking parking_{has_states()};
    bool splits_one_row_ = true; // attention does, as far as is known
    std::vector<float> embd_;    // of the rows in decode, [rows, n_embd_inp]
};

} // namespace mp
