#include "lane.h"

#include "drafting/logits.h"
#include "error.h"

#include <algorithm>
#include <cmath>

namespace mp {

Lane::Lane(std::shared_ptr<Cells> cells, size_t index, std::shared_ptr<Learned> learned, Embeddings * embeddings)
    : context_(cells->context()), cache_(std::move(cells), index), drafter_(std::move(learned)),
      embeddings_(embeddings) {}

void Lane::reset() {
    cache_.reset();
    pending_.clear();
    phase_ = Phase::idle;
}

void Lane::restore(std::vector<int32_t> tokens) {
    cache_.restore(std::move(tokens));
    pending_.clear();
    phase_ = Phase::idle;
}

void Lane::report_logprobs(int32_t n_top) {
    if (n_top < -1 || n_top > context_.n_vocab()) {
        throw Error(MP_ERROR_ARGUMENT, "n_top must be -1 or a number of tokens");
    }
    n_top_ = n_top;
}

void Lane::forget() {
    std::vector<int32_t> running = cached(); // a generation that runs goes on
    running.insert(running.end(), pending_.begin(), pending_.end());
    drafter_.forget(running);
}

void Lane::learn_text(const std::vector<int32_t> & tokens) {
    context_.check_tokens(tokens);
    drafter_.learn_text(tokens);
}

mp_shape Lane::shape() const {
    mp_shape shape{};
    shape.is_chain = cache_.takes_chains_only() ? 1 : 0;
    shape.n_snapshots = static_cast<int32_t>(context_.n_snapshots());
    shape.decodes_again = cache_.decodes_again() ? 1 : 0;
    return shape;
}

mp_totals Lane::totals() const {
    mp_totals totals = totals_;
    drafter_.reliability().copy_to(totals);
    return totals;
}

// --- cells ------------------------------------------------------------------------------------------

void Lane::leave_cells() {
    std::vector<int32_t> tokens = cached();
    cache_.reset();
    decode_again(tokens);
}

void Lane::refill_cells(const std::vector<uint8_t> & state) {
    const std::vector<int32_t> tokens = cached();
    if (!cache_.load(state)) {
        decode_again(tokens);
    }
}

void Lane::skip_cached() {
    cache_.keep_prefix(pending_);
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(cache_.size()));
}

// The cells of these tokens are gone; a generation that goes on needs them.
void Lane::decode_again(const std::vector<int32_t> & tokens) {
    if (goes_on()) {
        pending_.insert(pending_.begin(), tokens.begin(), tokens.end());
    }
}

// --- begin ------------------------------------------------------------------------------------------

size_t Lane::begin(std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation, int32_t max_tokens,
                   const Start & start) {
    if (prompt.empty()) {
        throw Error(MP_ERROR_ARGUMENT, "the prompt is empty");
    }
    const size_t n_ctx = context_.n_ctx();
    if (prompt.size() >= n_ctx) {
        throw Error(MP_ERROR_ARGUMENT, "a prompt of " + std::to_string(prompt.size()) +
                                           " tokens leaves no room in a context of " + std::to_string(n_ctx));
    }
    check(speculation);
    phase_ = Phase::idle;
    pass_.clear();
    has_met_end_ = false;
    totals_ = {};
    size_t n_reused = 0;
    if (start.other != nullptr) {
        n_reused = std::min(common_prefix(start.other->tokens(), prompt), prompt.size() - 1);
        cache_.adopt(*start.other, n_reused);
    } else if (start.reuse) {
        n_reused = cache_.keep_prefix(prompt);
    } else {
        cache_.reset();
    }
    pending_.assign(prompt.begin() + static_cast<std::ptrdiff_t>(n_reused), prompt.end());
    sampler_ = sampler;
    n_left_ = static_cast<int32_t>(std::min<size_t>(max_tokens, n_ctx - prompt.size()));
    masks_ = {n_embd(), std::move(speculation.masks), speculation.update};
    drafter_.begin(std::move(speculation), prompt, start.alone);
    phase_ = Phase::prefill;
    return n_reused;
}

// What the settings need of the context and of the embeddings.
void Lane::check(const Speculation & speculation) const {
    if (speculation.tree == MP_TREE_NONE) {
        return;
    }
    if (speculation.n_masks > 0 && embeddings_ == nullptr) {
        throw Error(MP_ERROR_ARGUMENT, "this session has no embeddings: no masks, so no such tree");
    }
    speculation.check(context_.n_vocab());
    const size_t rows = static_cast<size_t>(speculation.block);
    if (rows > context_.n_ubatch()) {
        throw Error(MP_ERROR_ARGUMENT, "a block of " + std::to_string(rows) +
                                           " rows does not fit n_ubatch = " + std::to_string(context_.n_ubatch()));
    }
    if (!speculation.is_mixed() && cache_.takes_chains_only()) {
        throw Error(MP_ERROR_ARGUMENT, "this model's memory takes one chain of drafts at a time: a mixed tree alone");
    }
    // Every node that carries masks ends in a leaf with a sequence id of its own; a mixed tree has as many as fit.
    if (!speculation.is_mixed() && rows / speculation.rows_per_node() > cache_.n_leaves()) {
        throw Error(MP_ERROR_ARGUMENT, "a block of " + std::to_string(rows) + " rows has more leaves than the " +
                                           std::to_string(cache_.n_leaves()) + " sequences of the context");
    }
}

// --- one pass ---------------------------------------------------------------------------------------

void Lane::check_goes_on() const {
    if (phase_ == Phase::idle) {
        throw Error(MP_ERROR_ARGUMENT, "nothing to continue: begin a generation first");
    }
    if (!goes_on()) {
        throw Error(MP_ERROR_ARGUMENT, "the generation has ended");
    }
}

void Lane::start_pass() {
    pass_.clear();
    plan_.reset();
    n_cached_ = cache_.size();
    n_scans_ = cache_.n_scans();
}

void Lane::lay_out_piece(size_t n) {
    const auto end = pending_.begin() + static_cast<std::ptrdiff_t>(n);
    const bool is_end_of_prompt = phase_ == Phase::prefill && end == pending_.end();
    block_ =
        layout_prompt({pending_.begin(), end}, static_cast<int32_t>(n_cached_), cache_.n_sequences(), is_end_of_prompt);
}

void Lane::lay_out(Plan plan) {
    plan_ = std::move(plan);
    block_ = layout_block(pending_, plan_->tree, plan_->masks_of_node, static_cast<int32_t>(n_cached_),
                          cache_.n_sequences());
    cache_.prepare(block_);
}

void Lane::take(size_t first_row, double decode_ms, bool is_last) {
    pass_.record.decode_ms = decode_ms;
    pass_.record.n_rows = static_cast<int32_t>(block_.n_rows());
    is_last_ = is_last;
    try {
        plan_ ? take_plan(static_cast<int32_t>(first_row)) : take_piece(static_cast<int32_t>(first_row));
    } catch (...) {
        abandon(is_last);
        throw;
    }
}

void Lane::abandon(bool is_last) {
    phase_ = Phase::idle;
    pending_.clear();
    cache_.abandon(n_cached_, is_last);
}

void Lane::take_piece(int32_t first_row) {
    const size_t n = static_cast<size_t>(block_.n_again) + 1;
    const bool is_end_of_prompt = block_.output[n - 1] != 0;
    if (is_end_of_prompt) {
        commit_token(sample(context_.logits_of(first_row + static_cast<int32_t>(n) - 1)));
    }
    cache_.commit(block_, 1, is_last_);
    const size_t n_next = cache_.shares_cells() ? n : context_.n_batch();
    if (phase_ == Phase::prefill && pending_.size() - n <= n_next) {
        cache_.remember(); // before the last piece, which chats may end differently, and behind it
    }
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(n));
    if (is_end_of_prompt) {
        pending_ = pass_.tokens;
        phase_ = Phase::step;
    }
}

void Lane::take_plan(int32_t first_row) {
    const std::vector<int32_t> path = verify(first_row);
    score_masks();
    read_masks(path.back(), first_row);
    commit(n_on_spine(path, block_.spine));
    drafter_.end_pass(*plan_, path);

    mp_pass & record = pass_.record;
    record.n_accepted = static_cast<int32_t>(path.size()) - 1;
    record.n_drafted = static_cast<int32_t>(plan_->tree.n_drafted());
    record.n_again = block_.n_again;
    record.n_kv_scans = static_cast<int32_t>(cache_.n_scans() - n_scans_);
    record.expected = plan_->expected;
    record.price = plan_->price;
    add(totals_, record);
}

// What the context and the number of tokens still wanted leave for a draft.
PlanLimits Lane::limits() const {
    PlanLimits limits;
    limits.n_again = pending_.size() - 1;
    limits.rows = std::min(context_.n_ctx() - cache_.size(), context_.n_ubatch());
    limits.rows = std::min(limits.rows, limits.n_again + 1 + cache_.most_drafted(limits.n_again));
    limits.depth = static_cast<size_t>(n_left_) - 1; // deeper drafts are not wanted
    limits.leaves = cache_.n_leaves();
    limits.chain = cache_.takes_chains_only();
    limits.decodes_again = cache_.decodes_again();
    return limits;
}

// Tokens are their rows of the embedding table.
void Lane::embed(float * out) const {
    for (size_t row = 0; row < block_.n_rows(); ++row, out += context_.n_embd_inp()) {
        if (block_.mask[row] >= 0) {
            std::copy_n(masks_.row(block_.mask[row]), n_embd(), out);
        } else {
            embeddings_->rows(&block_.token[row], 1, out);
        }
    }
}

// Walks the tree from the root with one draw of the sampler per committed token. Returns the nodes on the
// accepted path, the root first.
std::vector<int32_t> Lane::verify(int32_t first_row) {
    const Plan & plan = *plan_;
    std::vector<int32_t> path{0};
    for (;;) {
        const int32_t node = path.back();
        const float * logits = context_.logits_of(first_row + block_.row_of_node[node]);
        const int32_t token = sample(logits);
        if (drafter_.learns_from_rows()) {
            drafter_.learn(plan, node, token, top_listed(logits, context_.n_vocab(), AdjacencySource::width));
        }
        commit_token(token);
        const int32_t child = has_ended() ? -1 : plan.tree.child(node, token);
        if (child < 0) {
            return path;
        }
        path.push_back(child);
    }
}

// How well the masks that were read for this pass had foreseen its first token.
void Lane::score_masks() {
    if (const std::optional<float> logp = drafter_.guessed(pass_.tokens.front())) {
        pass_.record.n_probed = 1;
        pass_.record.probe_logp = *logp;
    }
}

// The masks of the deepest accepted node rank the candidates of the next tree [ESP, §3.3]: mask 1 sits in
// the slot of the bonus token's successor when seen from the next root.
void Lane::read_masks(int32_t node, int32_t first_row) {
    std::vector<Candidates> guesses;
    const int32_t n_masks = block_.row_of_mask[node] < 0 || has_ended() ? 0 : plan_->masks_of_node[node];
    for (int32_t i = 0; i < n_masks; ++i) {
        const size_t n_top = drafter_.n_ranked(i);
        const float * logits = context_.find_logits(first_row + block_.row_of_mask[node] + i);
        if (logits == nullptr || n_top == 0) {
            break; // without guesses the next pass is plain; what was committed stands
        }
        guesses.push_back(top_candidates(logits, context_.n_vocab(), n_top));
    }
    drafter_.set_guesses(std::move(guesses));
}

// Keeps the KV of the root and of the accepted nodes that lie on the spine, if it can be kept; the accepted nodes after
// those are decoded again at the head of the next block, so that cells stay in position order.
void Lane::commit(size_t n_on_spine) {
    const size_t n_kept = cache_.commit(block_, n_on_spine, is_last_);
    pending_.insert(pending_.end(), pass_.tokens.begin(), pass_.tokens.end());
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(n_kept));
}

void Lane::commit_token(int32_t token) {
    pass_.tokens.push_back(token);
    has_met_end_ = context_.is_eog(token);
    pass_.record.end = has_met_end_ ? 1 : 0;
    --n_left_;
    drafter_.commit(token);
    if (masks_.can_move()) {
        std::vector<float> row(masks_.n_embd);
        embeddings_->rows(&token, 1, row.data());
        masks_.commit(row.data());
    }
}

// --- choosing a token -------------------------------------------------------------------------------

int32_t Lane::sample(const float * logits) {
    const int32_t token = sampler_ == nullptr ? most_likely(logits, context_.n_vocab()) : draw(logits);
    if (n_top_ >= 0) {
        report_logprobs_of(token, logits);
    }
    return token;
}

// What llama_sampler_sample does, but a token that the chain has ruled out is an error here: samplers may end the
// process when they are told to accept one.
int32_t Lane::draw(const float * logits) {
    candidates_.resize(context_.n_vocab());
    for (int32_t token = 0; token < context_.n_vocab(); ++token) {
        candidates_[token] = {token, logits[token], 0.0f};
    }
    llama_token_data_array all{candidates_.data(), candidates_.size(), -1, false};
    llama_api().llama_sampler_apply(sampler_, &all);
    if (all.selected < 0 || static_cast<size_t>(all.selected) >= all.size ||
        !std::isfinite(all.data[all.selected].logit)) {
        throw Error(MP_ERROR_SAMPLING, "the sampler chain leaves no token to choose from");
    }
    const int32_t token = all.data[all.selected].id;
    llama_api().llama_sampler_accept(sampler_, token);
    return token;
}

void Lane::report_logprobs_of(int32_t token, const float * logits) {
    const float norm = log_normalizer(logits, context_.n_vocab());
    pass_.logp.push_back(logits[token] - norm);
    const Candidates best = top_listed(logits, context_.n_vocab(), n_top_);
    for (size_t i = 0; i < static_cast<size_t>(n_top_); ++i) {
        const bool listed = i < best.token.size();
        pass_.top.push_back(listed ? best.token[i] : -1);
        pass_.top_logp.push_back(listed ? logits[best.token[i]] - norm : 0.0f);
    }
}

} // namespace mp
