#include "drafting/drafter.h"

#include <algorithm>

namespace mp {

namespace {

constexpr size_t most_ranked = 32; // candidates of a mask that a mixed tree looks at

} // namespace

// --- what drafters have in common -------------------------------------------------------------------

std::shared_ptr<Market> Learned::market_of(const Speculation & settings) {
    if (market == nullptr || !market->is_of(settings.cost, settings.refine)) {
        market = std::make_shared<Market>(settings.cost, settings.refine, settings.change);
    }
    return market;
}

void Learned::forget() {
    adjacency.forget();
    history.forget();
    market.reset(); // a new one with the next generation
}

// --- a generation -----------------------------------------------------------------------------------

void Drafter::begin(Speculation settings, const std::vector<int32_t> & prompt, bool alone) {
    settings_ = std::move(settings);
    guesses_.clear();
    grammar_.begin(settings_.guide, settings_.guide_data);
    reliability_ = Reliability();
    if (settings_.is_mixed()) {
        begin_mixed(prompt, alone);
    }
}

void Drafter::begin_mixed(const std::vector<int32_t> & prompt, bool alone) {
    const std::vector<int32_t> & known = ngrams_.tokens();
    if ((settings_.sources & MP_SOURCE_HISTORY) != 0) {
        learned_->history.learn(known, written_from_);
    }
    if (known.size() > prompt.size() || !std::equal(known.begin(), known.end(), prompt.begin())) {
        // Another text: what makes one text repeat itself or not says nothing of the next, so belief starts anew.
        ngrams_.clear();
        mixer_ = Mixer();
        alone ? budget_.begin_text() : budget_.begin_trust();
    }
    for (size_t i = known.size(); i < prompt.size(); ++i) {
        ngrams_.push(prompt[i]);
    }
    written_from_ = prompt.size();
    if (std::shared_ptr<Market> market = learned_->market_of(settings_); market.get() != &budget_.market()) {
        budget_ = Budget(std::move(market));
    }
}

PlanLimits Drafter::kept(PlanLimits limits) const {
    limits.rows = std::min<size_t>(limits.rows, settings_.block);
    limits.masks = settings_.n_masks;
    return limits;
}

Evidence Drafter::evidence() const {
    return {ngrams_, learned_->adjacency, learned_->history, grammar_, guesses_, settings_.sources};
}

Plan Drafter::plan(int32_t root, PlanLimits limits) const {
    if (!proposes()) {
        return plan_of_guesses(root, limits);
    }
    Plan plan = limits.depth == 0 ? Plan(root) : make_plan(root, evidence(), mixer_, budget_, kept(limits));
    plan.price = budget_.price();
    return plan;
}

Proposal Drafter::propose(int32_t root, PlanLimits limits) const {
    return limits.depth == 0 ? Proposal(root, kept(limits))
                             : mp::propose(root, evidence(), mixer_, budget_, kept(limits));
}

Plan Drafter::settle(Proposal proposal, size_t n) const {
    Plan plan = mp::settle(std::move(proposal), n);
    plan.price = budget_.price();
    return plan;
}

// A static or dynamic tree, of which every node carries all masks. Tokens decoded again come on top of its block.
Plan Drafter::plan_of_guesses(int32_t root, const PlanLimits & limits) const {
    Plan plan(root);
    plan.expected = 0.0f;
    if (settings_.tree == MP_TREE_NONE || limits.depth == 0) {
        return plan;
    }
    const size_t rows = std::min<size_t>(settings_.block, limits.rows - limits.n_again);
    const size_t rows_per_node = settings_.rows_per_node();
    if (rows < rows_per_node) {
        return plan;
    }
    const size_t max_drafted = rows / rows_per_node - 1;
    std::optional<GrammarPlace> place;
    int32_t node_of_place = -1;
    const MayFollow may_follow = [&](const DraftTree & tree, int32_t node, int32_t token) {
        if (node != node_of_place) {
            const std::vector<int32_t> drafted = tree.drafted_to(node);
            place = grammar_.look(drafted.data(), drafted.size());
            node_of_place = node;
        }
        return !place || place->allows(token);
    };
    plan.tree = settings_.tree == MP_TREE_DYNAMIC
                    ? grow_dynamic(root, guesses_, settings_.prune, max_drafted, may_follow)
                    : grow_static(root, guesses_, settings_.widths, settings_.prune, max_drafted, may_follow);
    plan.masks_of_node.assign(plan.tree.size(), settings_.n_masks);
    plan.candidates.resize(plan.tree.size());
    return plan;
}

void Drafter::learn(const Plan & plan, int32_t node, int32_t actual, const Candidates & ranked) {
    const CandidateSet & candidates = plan.candidates[node];
    if (!candidates.items.empty()) {
        mixer_.learn(candidates, actual);
        ngrams_.learn(candidates, actual);
    }
    grammar_.learn(candidates, plan.tree.token[node], actual);
    learned_->adjacency.refresh(plan.tree.token[node], ranked);
}

void Drafter::commit(int32_t token) {
    if (settings_.is_mixed()) {
        ngrams_.push(token);
    }
}

void Drafter::end_pass(const Plan & plan, const std::vector<int32_t> & path) {
    if (settings_.is_mixed()) {
        reliability_.add(plan.tree, path);
        budget_.observe_drafts(path.size(), plan.expected); // each node of the path brought a token
    }
}

// --- what the masks guess ---------------------------------------------------------------------------

size_t Drafter::n_ranked(size_t mask) const {
    if (settings_.is_mixed()) {
        return std::min<size_t>(settings_.block, most_ranked);
    }
    // A static tree reads its widths, a dynamic one may spend all on one depth; one more for pruning.
    if (settings_.tree == MP_TREE_STATIC) {
        return mask < settings_.widths.size() ? settings_.widths[mask] + 1 : 0;
    }
    return settings_.block / settings_.rows_per_node();
}

std::optional<float> Drafter::guessed(int32_t token) const {
    if (guesses_.empty()) {
        return std::nullopt;
    }
    const Candidates & first = guesses_.front();
    const auto found = std::find(first.token.begin(), first.token.end(), token);
    return found == first.token.end() ? list_floor : std::max(list_floor, first.logp[found - first.token.begin()]);
}

// --- from generation to generation ------------------------------------------------------------------

void Drafter::forget(const std::vector<int32_t> & running) {
    ngrams_.clear();
    std::for_each(running.begin(), running.end(), [this](int32_t token) { ngrams_.push(token); });
    written_from_ = ngrams_.size();
    learned_->forget();
    grammar_.forget();
    mixer_ = Mixer();
}

} // namespace mp
