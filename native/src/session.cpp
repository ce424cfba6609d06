#include "session.h"

#include "drafting/logits.h"
#include "error.h"

#include <algorithm>
#include <cmath>

namespace mp {

namespace {

constexpr size_t probe_width = 32; // candidates read from a mask for a mixed tree

} // namespace

Session::Session(llama_context * ctx, Embeddings * embeddings, float embedding_scale)
    : context_(ctx), cache_(context_), embeddings_(embeddings), embedding_scale_(embedding_scale),
      adjacency_(context_.n_vocab()) {}

void Totals::add(const Pass & pass) {
    n_drafted += pass.n_drafted;
    n_rows += pass.n_rows;
    n_again += pass.n_again;
    n_kv_scans += pass.n_kv_scans;
    n_probed += pass.n_probed;
    probe_logp += pass.probe_logp;
    expected += pass.expected;
    decode_ms += pass.decode_ms;
}

void Session::reset() {
    cache_.reset();
    pending_.clear();
    phase_ = Phase::idle;
}

void Session::restore(std::vector<int32_t> tokens) {
    cache_.restore(std::move(tokens));
    pending_.clear();
    phase_ = Phase::idle;
}

void Session::report_logprobs(int32_t n_top) {
    if (n_top < -1 || n_top > context_.n_vocab()) {
        throw Error(MP_ERROR_ARGUMENT, "n_top must be -1 or a number of tokens");
    }
    n_top_ = n_top;
}

void Session::forget() {
    ngrams_.clear();
    for (const std::vector<int32_t> & tokens : {cache_.tokens(), pending_}) { // a generation that runs goes on
        std::for_each(tokens.begin(), tokens.end(), [this](int32_t token) { ngrams_.push(token); });
    }
    written_from_ = ngrams_.size();
    adjacency_.forget();
    history_.forget();
    mixer_ = Mixer();
    budget_cost_.clear(); // a new budget with the next generation
}

void Session::learn_text(const std::vector<int32_t> & tokens) {
    context_.check_tokens(tokens);
    history_.learn(tokens, 0);
}

// --- begin and prefill ------------------------------------------------------------------------------

size_t Session::begin(std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation, int32_t max_tokens,
                      bool reuse) {
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
    pass_ = Pass();
    size_t n_keep = 0;
    if (reuse) {
        n_keep = cache_.keep_prefix(prompt);
    } else {
        cache_.reset();
    }
    pending_.assign(prompt.begin() + n_keep, prompt.end());
    sampler_ = sampler;
    probe_.n_masks = speculation.n_masks;
    probe_.n_embd = n_embd();
    probe_.masks = std::move(speculation.masks);
    probe_.update = speculation.update;
    speculation_ = std::move(speculation);
    levels_.clear();
    totals_ = Totals();
    n_left_ = static_cast<int32_t>(std::min<size_t>(max_tokens, n_ctx - prompt.size()));
    if (is_mixed()) {
        prepare_sources(prompt);
    }
    phase_ = Phase::prefill;
    return n_keep;
}

void Session::prepare_sources(const std::vector<int32_t> & prompt) {
    const std::vector<int32_t> & known = ngrams_.tokens();
    if ((speculation_.sources & MP_SOURCE_HISTORY) != 0) {
        history_.learn(known, written_from_);
    }
    if (known.size() > prompt.size() || !std::equal(known.begin(), known.end(), prompt.begin())) {
        // Another text: what makes one text repeat itself or not says nothing of the next, so belief starts anew.
        ngrams_.clear();
        mixer_ = Mixer();
        budget_.begin_text();
    }
    for (size_t i = ngrams_.tokens().size(); i < prompt.size(); ++i) {
        ngrams_.push(prompt[i]);
    }
    written_from_ = prompt.size();
    if (budget_cost_ != speculation_.cost || budget_.refines() != speculation_.refine) {
        budget_cost_ = speculation_.cost;
        budget_ = Budget(budget_cost_, speculation_.refine, speculation_.change);
    }
}

void Session::check(const Speculation & speculation) const {
    if (speculation.tree == MP_TREE_NONE) {
        return;
    }
    const bool mixed = speculation.tree == MP_TREE_MIXED;
    if (speculation.n_masks > 0 && embeddings_ == nullptr) {
        throw Error(MP_ERROR_ARGUMENT, "this session has no embeddings: no masks, so no such tree");
    }
    if (speculation.n_masks == 0 && !mixed) {
        throw Error(MP_ERROR_ARGUMENT, "a tree of mask guesses needs at least one mask per node");
    }
    const int32_t rows_per_node = mixed ? 1 : 1 + speculation.n_masks;
    if (speculation.block < rows_per_node) {
        throw Error(MP_ERROR_ARGUMENT,
                    "a block of " + std::to_string(speculation.block) + " rows is too small for a root and its masks");
    }
    const size_t rows = static_cast<size_t>(speculation.block);
    if (rows > context_.n_ubatch()) {
        throw Error(MP_ERROR_ARGUMENT, "a block of " + std::to_string(rows) +
                                           " rows does not fit n_ubatch = " + std::to_string(context_.n_ubatch()));
    }
    // Every node that carries masks ends in a leaf with a sequence id of its own.
    if (!mixed && rows / rows_per_node > context_.n_seq_max()) {
        throw Error(MP_ERROR_ARGUMENT, "a block of " + std::to_string(rows) + " rows has more leaves than the " +
                                           std::to_string(context_.n_seq_max()) + " sequences of the context");
    }
    for (const int32_t width : speculation.widths) {
        if (width < 1 || width > context_.n_vocab()) {
            throw Error(MP_ERROR_ARGUMENT, "a tree cannot have " + std::to_string(width) + " nodes at a depth");
        }
    }
    if (!(speculation.update >= 0.0f && speculation.update <= 1.0f)) {
        throw Error(MP_ERROR_ARGUMENT, "update must be in 0..1");
    }
    for (const float x : speculation.masks) {
        if (!std::isfinite(x)) {
            throw Error(MP_ERROR_ARGUMENT, "a mask embedding holds a value that is not finite");
        }
    }
    for (const float x : speculation.cost) {
        if (!(x >= 1e-9f && x <= 1e9f)) { // beyond, sums and ratios of costs are no numbers any more
            throw Error(MP_ERROR_ARGUMENT, "the cost of a pass must be positive and finite, in 1e-9..1e9");
        }
    }
    if (mixed && speculation.cost.empty()) {
        throw Error(MP_ERROR_ARGUMENT, "a mixed tree needs the cost of passes");
    }
}

// After a failure inside a pass: back to the committed tokens that were in the KV cache before.
void Session::abandon(size_t n_cached) {
    phase_ = Phase::idle;
    pending_.clear();
    cache_.abandon(n_cached);
}

const Pass & Session::prefill() {
    if (phase_ != Phase::prefill) {
        throw Error(MP_ERROR_ARGUMENT, "no prompt to decode: begin a generation first");
    }
    pass_ = Pass();
    const size_t n = std::min<size_t>(pending_.size(), context_.n_batch());
    const bool last = n == pending_.size();
    const std::vector<int32_t> tokens(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(n));
    const size_t n_cached = cache_.size();
    Block block = layout_prompt(tokens, static_cast<int32_t>(n_cached), cache_.n_sequences(), last);
    try {
        decode(block);
        if (last) {
            commit_token(sample(static_cast<int32_t>(n) - 1));
        }
        cache_.commit(block, 1);
    } catch (...) {
        abandon(n_cached);
        throw;
    }
    pending_.erase(pending_.begin(), pending_.begin() + n);
    if (last) {
        pending_ = {pass_.tokens.back()};
        phase_ = Phase::step;
    }
    return pass_;
}

// --- one pass ---------------------------------------------------------------------------------------

const Pass & Session::step() {
    if (phase_ != Phase::step) {
        throw Error(MP_ERROR_ARGUMENT, "nothing to continue: finish the prompt first");
    }
    if (n_left_ <= 0 || pass_.end) {
        throw Error(MP_ERROR_ARGUMENT, "the generation has ended");
    }
    pass_ = Pass();
    const Plan plan = draft();
    const int64_t n_scans = cache_.n_scans();
    const size_t n_cached = cache_.size();
    cache_.grow_sequences(count_leaves(plan.tree, plan.masks_of_node));
    Block block =
        layout_block(pending_, plan.tree, plan.masks_of_node, static_cast<int32_t>(n_cached), cache_.n_sequences());
    pass_.n_drafted = static_cast<int32_t>(plan.tree.n_drafted());
    pass_.n_again = block.n_again;
    std::vector<int32_t> path;
    try {
        decode(block);
        path = verify(plan, block);
        score_probe(pass_.tokens.front());
        read_masks(path.back(), plan, block);
        commit(block, n_on_spine(path, block.spine));
    } catch (...) {
        abandon(n_cached);
        throw;
    }
    pass_.n_kv_scans = static_cast<int32_t>(cache_.n_scans() - n_scans);
    if (is_mixed()) {
        totals_.reliability.add(plan.tree, path);
        pass_.expected = plan.expected;
        pass_.price = budget_.price();
        budget_.observe(block.n_rows(), pass_.tokens.size(), plan.expected, pass_.decode_ms);
    }
    totals_.add(pass_);
    return pass_;
}

// The next tree and its masks: as much as the settings, the context and the number of tokens still wanted
// allow.
Plan Session::draft() const {
    const int32_t root = pending_.back();
    const size_t n_again = pending_.size() - 1;
    const size_t room = context_.n_ctx() - cache_.size();  // cells
    const size_t depth = static_cast<size_t>(n_left_) - 1; // deeper drafts are not wanted
    Plan plain{DraftTree(root), {0}, {CandidateSet()}, 1.0f};
    if (speculation_.tree == MP_TREE_NONE || depth == 0) {
        return plain;
    }
    if (is_mixed()) {
        const PlanLimits limits{std::min<size_t>(speculation_.block, room), n_again, depth, context_.n_seq_max(),
                                speculation_.n_masks};
        return make_plan(root, Evidence{ngrams_, adjacency_, history_, levels_, speculation_.sources}, mixer_, budget_,
                         limits);
    }
    // Tokens decoded again ride in the same batch, which must stay one ubatch.
    const size_t rows = std::min<size_t>(speculation_.block, std::min<size_t>(room, context_.n_ubatch()) - n_again);
    const size_t rows_per_node = 1 + speculation_.n_masks;
    if (rows < rows_per_node) {
        return plain;
    }
    const size_t max_drafted = rows / rows_per_node - 1;
    Plan plan{speculation_.tree == MP_TREE_DYNAMIC
                  ? grow_dynamic(root, levels_, speculation_.prune, max_drafted)
                  : grow_static(root, levels_, speculation_.widths, speculation_.prune, max_drafted),
              {},
              {},
              1.0f};
    plan.masks_of_node.assign(plan.tree.size(), speculation_.n_masks);
    plan.candidates.resize(plan.tree.size());
    return plan;
}

void Session::decode(Block & block) {
    float * embd = nullptr;
    if (block.has_masks()) {
        const size_t n_embd = embeddings_->n_embd();
        embd_.resize(block.n_rows() * n_embd);
        embd = embd_.data();
        for (size_t row = 0; row < block.n_rows(); ++row) {
            float * out = embd + row * n_embd;
            if (block.mask[row] >= 0) {
                std::copy_n(probe_.mask(block.mask[row]), n_embd, out);
            } else {
                embeddings_->rows(&block.token[row], 1, out);
            }
        }
        if (embedding_scale_ != 1.0f) {
            for (float & x : embd_) {
                x *= embedding_scale_;
            }
        }
    }
    pass_.decode_ms = context_.decode(block, embd);
    pass_.n_rows = static_cast<int32_t>(block.n_rows());
}

// Walks the tree from the root with one draw of the sampler per committed token. Returns the nodes on the
// accepted path, the root first.
std::vector<int32_t> Session::verify(const Plan & plan, const Block & block) {
    std::vector<int32_t> path{0};
    for (;;) {
        const int32_t node = path.back();
        const int32_t row = block.row_of_node[node];
        const int32_t token = sample(row);
        if (is_mixed()) {
            learn(plan.candidates[node], plan.tree.token[node], row, token);
        }
        commit_token(token);
        if (pass_.end || n_left_ == 0) {
            break;
        }
        const int32_t child = plan.tree.child(node, token);
        if (child < 0) {
            break;
        }
        path.push_back(child);
    }
    pass_.n_accepted = static_cast<int32_t>(path.size()) - 1;
    return path;
}

// How well the masks that were read for this pass had foreseen its first token.
void Session::score_probe(int32_t actual) {
    if (levels_.empty()) {
        return;
    }
    const Candidates & level = levels_.front();
    const auto found = std::find(level.token.begin(), level.token.end(), actual);
    pass_.n_probed = 1;
    pass_.probe_logp =
        found == level.token.end() ? list_floor : std::max(list_floor, level.logp[found - level.token.begin()]);
}

// What a verified row teaches: the token that followed, and what the model ranked beside it.
void Session::learn(const CandidateSet & candidates, int32_t node_token, int32_t row, int32_t actual) {
    if (!candidates.items.empty()) {
        mixer_.learn(candidates, actual);
        ngrams_.learn(candidates, actual);
    }
    adjacency_.refresh(node_token, top_listed(context_.logits_of(row), context_.n_vocab(), AdjacencySource::width));
}

// Keeps the KV of the root and of the accepted nodes that lie on the spine; the accepted nodes after those
// are decoded again at the head of the next block, so that cells stay in position order.
void Session::commit(const Block & block, size_t n_on_spine) {
    cache_.commit(block, n_on_spine);
    pending_.assign(pass_.tokens.begin() + static_cast<std::ptrdiff_t>(n_on_spine) - 1, pass_.tokens.end());
}

// The masks of the deepest accepted node rank the candidates of the next tree [ESP, §3.3]: mask 1 sits in
// the slot of the bonus token's successor when seen from the next root.
void Session::read_masks(int32_t node, const Plan & plan, const Block & block) {
    levels_.clear();
    if (block.row_of_mask[node] < 0 || pass_.end || n_left_ == 0) {
        return;
    }
    for (int32_t i = 0; i < plan.masks_of_node[node]; ++i) {
        // A static tree reads its widths, a dynamic one may spend all on one depth; one more for pruning.
        size_t n_top = speculation_.block / (1 + speculation_.n_masks);
        if (is_mixed()) {
            n_top = std::min<size_t>(speculation_.block, probe_width);
        } else if (speculation_.tree == MP_TREE_STATIC) {
            n_top = static_cast<size_t>(i) < speculation_.widths.size() ? speculation_.widths[i] + 1 : 0;
        }
        const float * logits = context_.find_logits(block.row_of_mask[node] + i);
        if (logits == nullptr || n_top == 0) {
            break; // without guesses the next pass is plain; what was committed stands
        }
        levels_.push_back(top_candidates(logits, context_.n_vocab(), n_top));
    }
}

// --- small parts ------------------------------------------------------------------------------------

int32_t Session::sample(int32_t row) {
    const float * logits = context_.logits_of(row);
    const int32_t token = sampler_ == nullptr ? most_likely(logits, context_.n_vocab()) : draw(logits);
    if (n_top_ >= 0) {
        report(token, logits);
    }
    return token;
}

// What llama_sampler_sample does, but a token that the chain has ruled out is an error here: samplers may end the
// process when they are told to accept one.
int32_t Session::draw(const float * logits) {
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

void Session::report(int32_t token, const float * logits) {
    const float norm = log_normalizer(logits, context_.n_vocab());
    pass_.logp.push_back(logits[token] - norm);
    const Candidates best = top_listed(logits, context_.n_vocab(), n_top_);
    for (size_t i = 0; i < static_cast<size_t>(n_top_); ++i) {
        const bool listed = i < best.token.size();
        pass_.top.push_back(listed ? best.token[i] : -1);
        pass_.top_logp.push_back(listed ? logits[best.token[i]] - norm : 0.0f);
    }
}

void Session::commit_token(int32_t token) {
    pass_.tokens.push_back(token);
    pass_.end = context_.is_eog(token);
    --n_left_;
    if (is_mixed()) {
        ngrams_.push(token);
    }
    if (probe_.n_masks > 0 && probe_.update != 0.0f) {
        std::vector<float> row(probe_.n_embd);
        embeddings_->rows(&token, 1, row.data());
        probe_.commit(row.data());
    }
}

} // namespace mp
