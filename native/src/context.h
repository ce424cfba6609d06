// A llama_context as the core sees it: its sizes and vocabulary, one decode, logits, and the cells of its memory. A
// view that borrows the context and copies freely. Knows nothing of drafts, generations or which tokens the cells hold.
#pragma once

#include "block.h"
#include "llama_api.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mp {

// How drafts are taken back from a context's memory.
enum class Rewind {
    cells,     // one cell a token: any tree, taken back by sequence ids and positions
    snapshots, // a recurrent state with a snapshot per row of the last decode: one chain
    copies     // a recurrent state without: one chain in a copy of the sequence, which is kept whole or dropped
};

class Context {
public:
    Context(llama_context * ctx); // not explicit: a view of it, as std::string_view is of a string

    size_t n_ctx() const { return llama_api().llama_n_ctx(ctx_); }
    size_t n_batch() const { return llama_api().llama_n_batch(ctx_); }
    size_t n_ubatch() const { return llama_api().llama_n_ubatch(ctx_); }
    size_t n_seq_max() const { return llama_api().llama_n_seq_max(ctx_); }
    Rewind rewind() const { return rewind_; }
    // Rows of the last decode that snapshots can take back.
    size_t n_snapshots() const { return llama_api().llama_n_rs_seq(ctx_); }
    // Values of an input row: more than an embedding has where a model wants zeros behind it.
    size_t n_embd_inp() const { return n_embd_inp_; }
    int32_t n_vocab() const { return n_vocab_; }
    bool is_eog(int32_t token) const { return llama_api().llama_vocab_is_eog(vocab_, token); }
    // Throws Error (MP_ERROR_ARGUMENT) if one of them is not in the vocabulary.
    void check_tokens(const std::vector<int32_t> & tokens) const;

    // Decodes the block and waits for the result; embd: [rows, n_embd], or null for a block without masks. Returns the
    // milliseconds that llama.cpp took. Throws Error (MP_ERROR_DECODE).
    double decode(Block & block, float * embd) const;
    // The logits of a row of the last decode, [n_vocab]. Where llama.cpp has none, find_logits returns null and
    // logits_of throws Error (MP_ERROR_DECODE).
    const float * find_logits(int32_t row) const { return llama_api().llama_get_logits_ith(ctx_, row); }
    const float * logits_of(int32_t row) const;

    // The cells of the memory. Each of the next two looks at all of them.
    void clear_cells() const { llama_api().llama_memory_clear(memory_, false); }
    // Takes a sequence (-1: every one) off its cells from first_pos on. False if the memory cannot be cut.
    bool cut_cells(int32_t sequence, int32_t first_pos) const {
        return llama_api().llama_memory_seq_rm(memory_, sequence, first_pos, -1);
    }
    // Gives a sequence's cells at first_pos..end_pos-1 another sequence id too; -1: from the first, to the last.
    void share_cells(int32_t from, int32_t to, int32_t first_pos, int32_t end_pos) const {
        llama_api().llama_memory_seq_cp(memory_, from, to, first_pos, end_pos);
    }
    // The recurrent state of a sequence, to go back to; empty if llama.cpp cannot give it.
    std::vector<uint8_t> save_state(int32_t sequence) const { return save(sequence, true); }
    // Puts it back. False if llama.cpp refuses it, which leaves the sequence in no state to go on from.
    bool load_state(int32_t sequence, const std::vector<uint8_t> & state) const { return load(sequence, state, true); }

    // All that the memory holds of a sequence; empty if llama.cpp cannot give it.
    std::vector<uint8_t> save_sequence(int32_t sequence) const { return save(sequence, false); }
    // Puts it into new cells of a sequence that has none, in order of position. False if llama.cpp refuses it.
    bool load_sequence(int32_t sequence, const std::vector<uint8_t> & state) const {
        return load(sequence, state, false);
    }

private:
    std::vector<uint8_t> save(int32_t sequence, bool recurrent_alone) const;
    bool load(int32_t sequence, const std::vector<uint8_t> & state, bool recurrent_alone) const;

    llama_context * ctx_;
    llama_memory_i * memory_;
    const llama_vocab * vocab_;
    int32_t n_vocab_;
    size_t n_embd_inp_;
    Rewind rewind_;
};

} // namespace mp
