#include "kv_cache.h"

#include "error.h"

#include <algorithm>

namespace mp {

namespace {

constexpr int32_t every_sequence = -1;
constexpr int32_t to_the_end = -1;

} // namespace

void KvCache::reset() {
    context_.clear_cells();
    tokens_.clear();
    n_sequences_ = 1;
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
}

size_t KvCache::keep_prefix(const std::vector<int32_t> & prompt) {
    size_t n = 0;
    while (n < tokens_.size() && n + 1 < prompt.size() && tokens_[n] == prompt[n]) {
        ++n;
    }
    if (n == 0) {
        reset();
    } else if (n < tokens_.size() && cut(every_sequence, n)) {
        tokens_.resize(n);
    }
    return tokens_.size();
}

void KvCache::grow_sequences(int32_t n) {
    for (; n_sequences_ < n; ++n_sequences_) {
        if (!tokens_.empty()) {
            share(n_sequences_, 0, to_the_end);
        }
    }
}

void KvCache::commit(const Block & block, size_t n_on_spine) {
    const auto first_row = block.token.begin();
    const auto root_row = first_row + block.n_again;
    tokens_.insert(tokens_.end(), first_row, root_row + 1);
    const size_t end_of_root = tokens_.size();
    tokens_.insert(tokens_.end(), root_row + 1, root_row + static_cast<std::ptrdiff_t>(n_on_spine));
    const size_t end = tokens_.size();
    if (n_on_spine == 1) {
        const bool has_more = block.n_rows() > static_cast<size_t>(block.n_again) + 1;
        if (has_more) {
            strip(every_sequence, end_of_root);
        }
        return;
    }
    // Sequence 0 ends below the spine, so it holds the kept cells: strip the others, then share its cells.
    for (int32_t s = 1; s < block.n_sequences; ++s) {
        strip(s, end_of_root);
    }
    strip(0, end);
    for (int32_t s = 1; s < n_sequences_; ++s) {
        share(s, static_cast<int32_t>(end_of_root), static_cast<int32_t>(end));
    }
}

void KvCache::abandon(size_t n) {
    tokens_.resize(std::min(tokens_.size(), n)); // fewer if a cut has failed
    cut(every_sequence, tokens_.size());
}

// Takes a sequence off its cells from first_pos on. False if the memory cannot be cut; the cache is empty then.
bool KvCache::cut(int32_t sequence, size_t first_pos) {
    ++n_scans_;
    if (context_.cut_cells(sequence, static_cast<int32_t>(first_pos))) {
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

// Gives sequence 0's cells at first_pos..end_pos-1 another sequence id too.
void KvCache::share(int32_t sequence, int32_t first_pos, int32_t end_pos) {
    ++n_scans_;
    context_.share_cells(sequence, first_pos, end_pos);
}

} // namespace mp
