#include "kv_cache.h"

#include "error.h"

#include <algorithm>

namespace mp {

namespace {

constexpr int32_t every_sequence = -1;
constexpr int32_t from_the_start = -1;
constexpr int32_t to_the_end = -1;
constexpr int32_t copy = 1;      // the sequence that drafts are tried in where states cannot be rolled back
constexpr size_t most_again = 8; // rows: with more of them pending nothing is drafted, so that they are kept at last
constexpr size_t n_checkpoints = 4;

} // namespace

size_t KvCache::most_drafted(size_t n_again) const {
    switch (context_.rewind()) {
    case Rewind::snapshots: return context_.n_snapshots();
    case Rewind::copies: return n_again > most_again ? 0 : context_.n_ubatch();
    default: return context_.n_ubatch();
    }
}

// --- a block ----------------------------------------------------------------------------------------

void KvCache::prepare(Block & block) {
    if (!takes_chains_only()) {
        grow_sequences(block.n_sequences);
        return;
    }
    works_in_copy_ = decodes_again() && block.has_drafts();
    if (works_in_copy_) {
        share(0, copy, from_the_start, to_the_end);
        std::fill(block.sequences.begin(), block.sequences.end(), std::vector<int32_t>{copy});
    }
}

size_t KvCache::commit(const Block & block, size_t n_on_spine, bool is_last) {
    leaves_cells_ = cells_->are_shared() && !is_last;
    const auto first_row = block.token.begin();
    const size_t n_accepted = static_cast<size_t>(block.n_again) + n_on_spine;
    if (works_in_copy_ && n_accepted < block.n_rows()) {
        works_in_copy_ = false;
        strip(copy, 0);
        return 0;
    }
    const size_t end_of_root = tokens_.size() + static_cast<size_t>(block.n_again) + 1;
    tokens_.insert(tokens_.end(), first_row, first_row + static_cast<std::ptrdiff_t>(n_accepted));
    if (works_in_copy_) { // all of it is accepted: the copy takes the place of what it was made of
        works_in_copy_ = false;
        strip(0, 0);
        share(copy, 0, from_the_start, to_the_end);
        strip(copy, 0);
    } else if (!takes_chains_only()) {
        keep_cells(block, n_on_spine, end_of_root);
    } else if (n_accepted < block.n_rows()) {
        strip(0, tokens_.size()); // never more than the rows of this block, nor by every_sequence
    }
    if (cells_->are_shared() && is_last) {
        cells_->free_last(block.n_rows() - n_accepted);
    }
    return n_accepted;
}

// Leaves the root and the accepted nodes of the spine, whose cells follow each other.
void KvCache::keep_cells(const Block & block, size_t n_on_spine, size_t end_of_root) {
    if (n_on_spine == 1) {
        if (block.has_drafts()) {
            strip_all(block.n_sequences, end_of_root);
        }
        return;
    }
    // Sequence 0 ends below the spine, so it holds the kept cells: strip the others, then share its cells.
    for (int32_t s = 1; s < block.n_sequences; ++s) {
        strip(s, end_of_root);
    }
    strip(0, tokens_.size());
    for (int32_t s = 1; s < n_sequences_; ++s) {
        share(0, s, static_cast<int32_t>(end_of_root), static_cast<int32_t>(tokens_.size()));
    }
}

void KvCache::abandon(size_t n, bool is_last) {
    tokens_.resize(std::min(tokens_.size(), n)); // fewer if a cut has failed
    if (cells_->are_shared() && takes_chains_only()) {
        leaves_cells_ = true;
        tokens_.clear(); // no snapshot goes back to before the first row of a block
        cut(0, 0);
    } else if (cells_->are_shared()) {
        leaves_cells_ = !is_last;
        for (int32_t s = 0; s < n_sequences_; ++s) {
            cut(s, tokens_.size());
        }
    } else if (!takes_chains_only()) {
        cut(every_sequence, tokens_.size());
    } else if (works_in_copy_) {
        works_in_copy_ = false;
        cut(copy, 0);
    } else {
        reset(); // after a failed decode llama.cpp says that it has rolled a state back, and has not
    }
}

// --- from generation to generation ------------------------------------------------------------------

void KvCache::reset() {
    if (cells_->are_shared()) {
        give_up(0);
    } else {
        context_.clear_cells();
    }
    tokens_.clear();
    n_sequences_ = 1;
    works_in_copy_ = false;
}

void KvCache::restore(std::vector<int32_t> tokens) {
    if (!tokens_.empty()) {
        throw Error(MP_ERROR_ARGUMENT, "only an empty KV cache can be restored: reset the session first");
    }
    if (tokens.size() > context_.n_ctx()) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(tokens.size()) + " tokens cannot be in a context of " +
                                           std::to_string(context_.n_ctx()));
    }
    context_.check_tokens(tokens);
    tokens_ = std::move(tokens);
    n_sequences_ = 1;
    cells_->add_used(tokens_.size());
}

bool KvCache::load(const std::vector<uint8_t> & state) {
    const int32_t n = n_sequences_;
    n_sequences_ = 1;
    if (state.empty() || !context_.load_sequence(first_id_, state)) {
        tokens_.clear();
        return false;
    }
    cells_->add_used(tokens_.size());
    // Cells that a sliding window has left behind are taken for free ones unless two sequences have them.
    grow_sequences(std::max(n, std::min<int32_t>(2, static_cast<int32_t>(cells_->n_ids()))));
    return true;
}

bool KvCache::unpark(ParkedText text) {
    reset();
    tokens_ = std::move(text.tokens);
    return load(text.state);
}

void KvCache::adopt(const KvCache & other, size_t n) {
    reset();
    tokens_.assign(other.tokens_.begin(), other.tokens_.begin() + static_cast<std::ptrdiff_t>(n));
    ++n_scans_;
    context_.share_cells(other.first_id_, first_id_, 0, static_cast<int32_t>(n));
}

size_t KvCache::keep_prefix(const std::vector<int32_t> & prompt) {
    const size_t n = std::min(common_prefix(tokens_, prompt), prompt.size() - 1);
    if (n == tokens_.size()) {
        return n;
    }
    if (takes_chains_only()) {
        if (!go_back(prompt)) {
            reset();
        }
    } else if (n == 0) {
        reset();
    } else if (cells_->are_shared()) {
        give_up(n);
        tokens_.resize(n);
    } else if (cut(every_sequence, n)) {
        tokens_.resize(n);
    }
    return tokens_.size();
}

void KvCache::remember() {
    if (!takes_chains_only()) {
        return; // cells can be cut anywhere
    }
    const auto same = [this](const Checkpoint & one) { return one.tokens == tokens_; };
    checkpoints_.erase(std::remove_if(checkpoints_.begin(), checkpoints_.end(), same), checkpoints_.end());
    if (checkpoints_.size() == n_checkpoints) {
        checkpoints_.erase(checkpoints_.begin());
    }
    std::vector<uint8_t> state = context_.save_state(first_id_);
    if (!state.empty()) {
        checkpoints_.push_back({tokens_, std::move(state)});
    }
}

// To the latest checkpoint that the prompt and the present text have in common. False, with the memory unusable, if
// there is none or llama.cpp refuses it.
bool KvCache::go_back(const std::vector<int32_t> & prompt) {
    const Checkpoint * best = nullptr;
    for (const Checkpoint & one : checkpoints_) {
        const size_t n = one.tokens.size();
        // Keys and values are not in a checkpoint: they must still be in the cells.
        const bool fits =
            n < prompt.size() && common_prefix(one.tokens, prompt) == n && common_prefix(one.tokens, tokens_) == n;
        if (fits && (best == nullptr || n > best->tokens.size())) {
            best = &one;
        }
    }
    if (best == nullptr || !context_.load_state(first_id_, best->state)) {
        return false;
    }
    leaves_cells_ = cells_->are_shared();
    if (!cut(0, best->tokens.size())) {
        return false;
    }
    tokens_ = best->tokens;
    return true;
}

// --- cells ------------------------------------------------------------------------------------------

// Makes every cell carry the sequence ids 0..n-1 at least.
void KvCache::grow_sequences(int32_t n) {
    for (; n_sequences_ < n; ++n_sequences_) {
        if (!tokens_.empty()) {
            share(0, n_sequences_, 0, to_the_end);
        }
    }
}

// Takes a sequence off its cells from first_pos on. False if the memory cannot be cut; the cache is empty then.
bool KvCache::cut(int32_t sequence, size_t first_pos) {
    const int32_t id = sequence == every_sequence ? every_sequence : first_id_ + sequence;
    if (leaves_cells_) {
        ++n_scans_;
        cells_->leave(id, first_pos);
    }
    ++n_scans_;
    if (cells_->cut(id, first_pos)) {
        return true;
    }
    reset();
    return false;
}

// Cuts in the middle of a commit, where an emptied cache has lost what was committed: then it throws.
void KvCache::strip(int32_t sequence, size_t first_pos) {
    if (!cut(sequence, first_pos)) {
        throw Error(MP_ERROR_DECODE, "llama.cpp cannot take drafts back from this model's memory");
    }
}

// The same of the first n sequences, where no other has such cells.
void KvCache::strip_all(int32_t n, size_t first_pos) {
    if (!cells_->are_shared()) {
        strip(every_sequence, first_pos);
        return;
    }
    for (int32_t s = 0; s < n; ++s) {
        strip(s, first_pos);
    }
}

// Leaves shared cells of committed tokens behind, each of which carries all of the lane's ids.
void KvCache::give_up(size_t first_pos) {
    if (first_pos == tokens_.size()) {
        return;
    }
    ++n_scans_;
    cells_->leave(first_id_, first_pos);
    for (int32_t s = 0; s < n_sequences_; ++s) {
        ++n_scans_;
        cells_->cut(first_id_ + s, first_pos);
    }
}

void KvCache::share(int32_t from, int32_t to, int32_t first_pos, int32_t end_pos) {
    ++n_scans_;
    context_.share_cells(first_id_ + from, first_id_ + to, first_pos, end_pos);
}

} // namespace mp
