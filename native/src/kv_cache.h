// The KV cache of a session: which tokens it holds, and under which sequence ids. Keeps what a new prompt shares with
// it and what verification leaves of a block, and goes back to what was committed after a failure; counts what that
// costs. The only place that knows how drafts are taken back (see Rewind); others ask what shapes it takes. Knows
// nothing of how tokens are drafted or chosen.
//
// Invariants between calls:
//  - the memory holds exactly tokens(), at positions 0..; cells in position order;
//  - each cell carries the sequence ids 0..n_sequences()-1 and no other; a recurrent state is sequence 0's alone.
#pragma once

#include "context.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mp {

class KvCache {
public:
    explicit KvCache(const Context & context) : context_(context) {}

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
    size_t n_leaves() const { return takes_chains_only() ? 1 : context_.n_seq_max(); }

    // --- a block, from here to there -------------------------------------------------------------

    // Makes room for a block, which is to be decoded next; may give its rows another sequence.
    void prepare(Block & block);
    // Of a block that was decoded: keeps the rows before the root, the root, and so many nodes of the spine, the root
    // among them, or none of them where they must be decoded again. Returns how many rows it has kept. Throws Error
    // (MP_ERROR_DECODE) if the memory cannot be cut, which leaves nothing.
    size_t commit(const Block & block, size_t n_on_spine);
    // After a failure between the two: back to the first n tokens, those before the block, or to none.
    void abandon(size_t n);

    // --- from generation to generation -----------------------------------------------------------

    void reset();
    // The empty cache has been given these tokens from outside, in cells of sequence 0 alone.
    void restore(std::vector<int32_t> tokens);
    // Keeps what the prompt begins with, as far as the memory can be cut there, but not all of the prompt: its last
    // token's logits are needed. Returns how many tokens that are.
    size_t keep_prefix(const std::vector<int32_t> & prompt);
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
    void share(int32_t from, int32_t to, int32_t first_pos, int32_t end_pos);

    Context context_;
    std::vector<int32_t> tokens_;
    int32_t n_sequences_ = 1;
    bool works_in_copy_ = false;          // the present block's rows are in a copy of sequence 0
    std::vector<Checkpoint> checkpoints_; // the latest last
    int64_t n_scans_ = 0;
};

} // namespace mp
