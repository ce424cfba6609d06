// The KV cache of a session: which tokens it holds, and under which sequence ids. Keeps what a new prompt shares with
// it and what verification leaves of a block, and goes back to what was committed after a failure; counts what that
// costs. Knows nothing of how tokens are drafted or chosen.
//
// Invariants between calls:
//  - the cells hold exactly tokens(), at positions 0.., in position order;
//  - each of them carries the sequence ids 0..n_sequences()-1 and no other.
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

    void reset();
    // The empty cache has been given these tokens from outside, in cells of sequence 0 alone.
    void restore(std::vector<int32_t> tokens);
    // Keeps what the prompt begins with, but not all of the prompt: its last token's logits are needed. Returns how
    // many tokens that are.
    size_t keep_prefix(const std::vector<int32_t> & prompt);
    // Makes every cell carry the sequence ids 0..n-1 at least.
    void grow_sequences(int32_t n);
    // Keeps what was accepted of a decoded block: the rows before the root and the first n_on_spine nodes of the spine,
    // of which the root is one. Throws Error (MP_ERROR_DECODE) if the memory cannot be cut, which leaves nothing.
    void commit(const Block & block, size_t n_on_spine);
    // Goes back to the first n tokens after a failure: those before the block that failed.
    void abandon(size_t n);

private:
    bool cut(int32_t sequence, size_t first_pos);
    void strip(int32_t sequence, size_t first_pos);
    void share(int32_t sequence, int32_t first_pos, int32_t end_pos);

    Context context_;
    std::vector<int32_t> tokens_;
    int32_t n_sequences_ = 1;
    int64_t n_scans_ = 0;
};

} // namespace mp
