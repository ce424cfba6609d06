// The KV cache of a lane: which tokens it holds, and under which sequence ids. Keeps what a new prompt shares with
// it and what verification leaves of a block, and goes back to what was committed after a failure; counts what that
// costs. The only place that knows how drafts are taken back (see Rewind); others ask what shapes it takes. Knows
// nothing of how tokens are drafted or chosen.
//
// Invariants between calls:
//  - the lane's cells hold exactly tokens(), at positions 0..; cells in position order;
//  - each carries the first n_sequences() of the lane's ids and no other lane's; a recurrent state is sequence 0's
//  alone.
// Sequences are counted from the lane's first id on.
#pragma once

#include "cells.h"
#include "parking.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace mp {

class KvCache {
public:
    // Of a text that has all cells.
    explicit KvCache(const Context & context) : KvCache(std::make_shared<Cells>(context), 0) {}
    KvCache(std::shared_ptr<Cells> cells, size_t lane)
        : cells_(std::move(cells)), context_(cells_->context()),
          first_id_(cells_->are_shared() ? cells_->first_id(lane) : 0) {}

    const std::vector<int32_t> & tokens() const { return tokens_; }
    size_t size() const { return tokens_.size(); }
    int32_t n_sequences() const { return n_sequences_; }
    // Scans of all cells since the session was made.
    int64_t n_scans() const { return n_scans_; }

    // --- what blocks may look like ---------------------------------------------------------------

    // Whether drafts must be one chain, masks at its end.
    bool takes_chains_only() const { return context_.rewind() != Rewind::cells; }
    // Whether a block of which not all is accepted is decoded again, as far as it was.
    bool decodes_again() const { return context_.rewind() == Rewind::copies; }
    // Most drafted nodes and masks that can be taken back after so many rows that are decoded again.
    size_t most_drafted(size_t n_again) const;
    // Sequence ids that the leaves of a block may have.
    size_t n_leaves() const { return takes_chains_only() ? 1 : cells_->n_ids(); }
    bool shares_cells() const { return cells_->are_shared(); }
    // What is added to the ids of a block's rows.
    int32_t first_id() const { return first_id_; }

    // --- a block, from here to there -------------------------------------------------------------

    // Makes room for a block, which is to be decoded next; may give its rows another sequence.
    void prepare(Block & block);
    // Of a block that was decoded: keeps the rows before the root, the root, and so many nodes of the spine, the root
    // among them, or none of them where they must be decoded again. Returns how many rows it has kept. is_last: no
    // other lane's cells follow the block's. Throws Error (MP_ERROR_DECODE) if the memory cannot be cut, which leaves
    // nothing.
    size_t commit(const Block & block, size_t n_on_spine, bool is_last = true);
    // After a failure between the two: back to the first n tokens, those before the block, or to none, as always where
    // lanes have recurrent states. is_last: no cells of others follow that were taken since.
    void abandon(size_t n, bool is_last = true);

    // --- from generation to generation -----------------------------------------------------------

    void reset();
    // The empty cache has been given these tokens from outside, in cells of its first sequence alone.
    void restore(std::vector<int32_t> tokens);
    // Keeps what the prompt begins with, as far as the memory can be cut there, but not all of the prompt: its last
    // token's logits are needed. Returns how many tokens that are.
    size_t keep_prefix(const std::vector<int32_t> & prompt);
    // All that the cells hold; empty if llama.cpp cannot give it. After they were emptied by someone else it can be put
    // back into new ones; false, with nothing left, if llama.cpp refuses it.
    std::vector<uint8_t> save() const { return context_.save_sequence(first_id_); }
    bool load(const std::vector<uint8_t> & state);
    // Instead of what it has, a text that was parked. False, with nothing left, if llama.cpp refuses it.
    bool unpark(ParkedText text);
    // Instead of what it has, the first n tokens of another lane, in that lane's own cells, which both have then.
    void adopt(const KvCache & other, size_t n);
    // A place that a later prompt may go back to: remembers the recurrent state, where there is one.
    void remember();

private:
    struct Checkpoint {
        std::vector<int32_t> tokens;
        std::vector<uint8_t> state;
    };

    void grow_sequences(int32_t n);
    void keep_cells(const Block & block, size_t n_on_spine, size_t end_of_root);
    bool go_back(const std::vector<int32_t> & prompt);
    bool cut(int32_t sequence, size_t first_pos);
    void strip(int32_t sequence, size_t first_pos);
    void strip_all(int32_t n, size_t first_pos);
    void give_up(size_t first_pos);
    void share(int32_t from, int32_t to, int32_t first_pos, int32_t end_pos);

    std::shared_ptr<Cells> cells_;
    Context context_;
    int32_t first_id_;
    std::vector<int32_t> tokens_;
    int32_t n_sequences_ = 1;
    bool works_in_copy_ = false;          // the present block's rows are in a copy of sequence 0
    std::vector<Checkpoint> checkpoints_; // the latest last
    bool leaves_cells_ = false;           // what is cut off now is left behind, as others' cells follow it
    int64_t n_scans_ = 0;
};

} // namespace mp
