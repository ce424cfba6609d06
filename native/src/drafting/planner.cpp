#include "drafting/planner.h"

#include <algorithm>
#include <cmath>
#include <queue>

namespace mp {

namespace {

// Tokens that a mask's candidates add to the next pass when its node ends the accepted path.
constexpr float mask_value = 0.15f;
constexpr float noise = 1e-3f; // gains below this are

// A candidate that may become a node.
struct Offer {
    float p; // probability of the path that it ends
    int32_t parent;
    size_t candidate; // in the parent's set
    bool operator<(const Offer & other) const { return p != other.p ? p < other.p : parent > other.parent; }
};

size_t rows_before_drafts(const PlanLimits & limits) { return limits.others + limits.n_again + 1; }
// Of the whole pass, if it has no drafts but these.
size_t most_rows(const PlanLimits & limits) { return limits.others + limits.rows; }

// The tokens that lead to a node, its own last: the end of the committed ones, in which the root is, then the path.
std::vector<int32_t> context_of(const DraftTree & tree, int32_t node, const std::vector<int32_t> & committed) {
    const std::vector<int32_t> drafted = tree.drafted_to(node);
    const size_t room = NgramSource::max_match - std::min(drafted.size(), NgramSource::max_match);
    std::vector<int32_t> context(committed.end() - std::min(committed.size(), room), committed.end());
    context.insert(context.end(), drafted.begin(), drafted.end());
    return context;
}

// What may follow a node, with probabilities.
CandidateSet find_candidates(const DraftTree & tree, int32_t node, const Evidence & evidence, const Mixer & mixer) {
    const std::vector<int32_t> context = context_of(tree, node, evidence.ngrams.tokens());
    const auto depth = static_cast<size_t>(tree.depth[node]);
    const NodeContext view{context.data(), context.size()};
    CandidateSet set;
    if ((evidence.sources & MP_SOURCE_NGRAMS) != 0) {
        evidence.ngrams.propose(view, set);
    }
    if (depth < evidence.guesses.size()) {
        const Candidates & guesses = evidence.guesses[depth];
        set.add_list(guesses.token.data(), guesses.logp.data(), guesses.token.size(), guess_list);
    }
    if ((evidence.sources & MP_SOURCE_ADJACENCY) != 0) {
        evidence.adjacency.propose(view, set);
    }
    if ((evidence.sources & MP_SOURCE_HISTORY) != 0) {
        evidence.history.propose(view, set);
    }
    if (const auto place = evidence.grammar.look(context.data() + context.size() - depth, depth)) {
        evidence.grammar.propose(*place, view, set);
    }
    mixer.mix(set);
    return set;
}

// A node that brings less than the cheapest further row costs cannot pay, nor can those after it.
float least_gain(const Budget & budget, const PlanLimits & limits) {
    const size_t fixed = rows_before_drafts(limits);
    if (most_rows(limits) <= fixed) {
        return noise;
    }
    const float fixed_cost = budget.cost(fixed);
    float cheapest = budget.cost(fixed + 1) - fixed_cost;
    for (size_t n = fixed + 2; n <= most_rows(limits); ++n) {
        cheapest = std::min(cheapest, (budget.cost(n) - fixed_cost) / static_cast<float>(n - fixed));
    }
    return std::max(noise, budget.price() * cheapest / budget.trust());
}

// Grows the plan's tree, likeliest nodes first, with the candidates of each. Returns the probabilities of the paths to
// them, [nodes].
std::vector<float> grow(Plan & plan, const Evidence & evidence, const Mixer & mixer, const PlanLimits & limits,
                        float least) {
    DraftTree & tree = plan.tree;
    const size_t max_nodes = limits.rows > limits.n_again ? limits.rows - limits.n_again : 1;
    std::priority_queue<Offer> frontier;
    std::vector<float> path_p{1.0f};
    const auto expand = [&](int32_t node) {
        CandidateSet set = find_candidates(tree, node, evidence, mixer);
        for (size_t i = 0; i < set.items.size(); ++i) {
            if (!limits.chain || i == set.best) {
                frontier.push({path_p[node] * set.items[i].p, node, i});
            }
        }
        plan.candidates[node] = std::move(set);
    };
    expand(0);
    while (tree.size() < max_nodes && !frontier.empty()) {
        const Offer best = frontier.top();
        frontier.pop();
        if (best.p < least) {
            break;
        }
        const Candidate & candidate = plan.candidates[best.parent].items[best.candidate];
        const int32_t node = tree.add(best.parent, candidate.token, std::log(candidate.p));
        path_p.push_back(best.p);
        plan.candidates.emplace_back();
        if (static_cast<size_t>(tree.depth[node]) < limits.depth) {
            expand(node);
        }
    }
    return path_p;
}

// The rows that may be added, by what they bring. A node's masks are read when the path ends at the node.
std::vector<PlannedRow> list_rows(const DraftTree & tree, const std::vector<float> & path_p, bool with_masks) {
    std::vector<float> p_end = path_p;
    for (size_t i = tree.size(); i-- > 1;) {
        p_end[tree.parent[i]] -= path_p[i];
    }
    std::vector<PlannedRow> rows;
    for (size_t i = 0; i < tree.size(); ++i) {
        if (i > 0) {
            rows.push_back({path_p[i], static_cast<int32_t>(i), false});
        }
        if (with_masks) {
            rows.push_back({std::max(0.0f, p_end[i]) * mask_value, static_cast<int32_t>(i), true});
        }
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const PlannedRow & a, const PlannedRow & b) { return a.gain > b.gain; });
    return rows;
}

// A proposal whose rows are looked at one after the other, and what they make together.
class Bid {
public:
    explicit Bid(const Proposal & proposal)
        : proposal_(proposal), has_branch_(proposal.plan.tree.size(), false), n_rows_(proposal.limits.n_again + 1) {}

    bool is_open() const { return is_open_ && n_ < proposal_.rows.size(); }
    float next_gain() const { return proposal_.trust * next().gain; }
    size_t next_rows() const { return next().masks ? static_cast<size_t>(proposal_.limits.masks) : 1; }
    // Whether the next row keeps the limits. Masks are a branch below their node, a drafted node one below its parent:
    // a second one adds a leaf.
    bool next_fits() const {
        const size_t leaves = leaves_ + (has_branch_[next_branch()] ? 1 : 0);
        return n_rows_ + next_rows() <= proposal_.limits.rows && leaves <= proposal_.limits.leaves;
    }
    void close() { is_open_ = false; }
    void take() {
        gain_ += next().gain;
        leaves_ += has_branch_[next_branch()] ? 1 : 0;
        has_branch_[next_branch()] = true;
        n_rows_ += next_rows();
        ++n_;
    }
    float worth() const { return proposal_.trust * gain_; }
    size_t n() const { return n_; }
    size_t n_rows() const { return n_rows_; }

private:
    const PlannedRow & next() const { return proposal_.rows[n_]; }
    int32_t next_branch() const { return next().masks ? next().node : proposal_.plan.tree.parent[next().node]; }

    const Proposal & proposal_;
    std::vector<bool> has_branch_; // [nodes], drafted children or masks below them
    size_t n_rows_;
    size_t n_ = 0; // rows taken
    size_t leaves_ = 1;
    float gain_ = 0.0f;
    bool is_open_ = true;
};

// The one whose next row brings most, null if none has any.
Bid * best_of(std::vector<Bid> & bids) {
    Bid * best = nullptr;
    for (Bid & bid : bids) {
        if (bid.is_open() && (best == nullptr || bid.next_gain() > best->next_gain())) {
            best = &bid;
        }
    }
    return best;
}

// A chain's best length and whether masks follow it, all lengths looked at. Its masks are read if all of it is
// accepted. Where what is not accepted as a whole is decoded again, that is a price of the chain, and masks would break
// it always.
std::vector<PlannedRow> choose_chain(const std::vector<float> & path_p, const Budget & budget,
                                     const PlanLimits & limits) {
    const float price = budget.price();
    const size_t fixed = rows_before_drafts(limits);
    const float fixed_cost = budget.cost(fixed);
    const float cost_again = limits.decodes_again ? budget.cost(fixed + 1) - fixed_cost : 0.0f; // of a row
    std::vector<PlannedRow> chain;
    std::vector<PlannedRow> best;
    float gain = 0.0f;
    float best_worth = 0.0f;
    for (size_t n = 0; n < path_p.size(); ++n) {
        if (n > 0) {
            chain.push_back({path_p[n], static_cast<int32_t>(n), false});
            gain += path_p[n];
        }
        const float p_broken = 1.0f - path_p[n];
        const float n_again = p_broken * static_cast<float>(fixed) + gain - static_cast<float>(n) * path_p[n];
        for (const bool masks : {false, true}) {
            const size_t n_rows = fixed + n + (masks ? static_cast<size_t>(limits.masks) : 0);
            if (n_rows > most_rows(limits) || (masks && (limits.masks == 0 || limits.decodes_again))) {
                continue;
            }
            const float brought = gain + (masks ? path_p[n] * mask_value : 0.0f);
            const float cost = budget.cost(n_rows) - fixed_cost + n_again * cost_again;
            const float worth = budget.trust() * brought - price * cost;
            if (worth > best_worth) {
                best_worth = worth;
                best = chain;
                if (masks) {
                    best.push_back({path_p[n] * mask_value, static_cast<int32_t>(n), true});
                }
            }
        }
    }
    return best;
}

} // namespace

Proposal propose(int32_t root_token, const Evidence & evidence, const Mixer & mixer, const Budget & budget,
                 const PlanLimits & limits) {
    Proposal proposal(root_token, limits);
    proposal.trust = budget.trust();
    Plan & plan = proposal.plan;
    const std::vector<float> path_p = grow(plan, evidence, mixer, limits, least_gain(budget, limits));
    proposal.rows =
        limits.chain ? choose_chain(path_p, budget, limits) : list_rows(plan.tree, path_p, limits.masks > 0);
    return proposal;
}

// All numbers are looked at: costs go in steps.
std::vector<size_t> choose_numbers(const std::vector<const Proposal *> & proposals, const Budget & budget,
                                   size_t n_fixed, size_t most_rows) {
    const float price = budget.price();
    const float fixed_cost = budget.cost(n_fixed);
    std::vector<Bid> bids;
    for (const Proposal * proposal : proposals) {
        bids.emplace_back(*proposal);
    }
    std::vector<size_t> best(bids.size(), 0);
    float best_worth = 0.0f;
    size_t n_rows = n_fixed;
    while (Bid * bid = best_of(bids)) {
        if (!bid->next_fits() || n_rows + bid->next_rows() > most_rows) {
            bid->close();
            continue;
        }
        n_rows += bid->next_rows();
        bid->take();
        float brought = 0.0f;
        for (const Bid & one : bids) {
            brought += one.worth();
        }
        const float worth = brought - price * (budget.cost(n_rows) - fixed_cost);
        if (worth > best_worth) {
            best_worth = worth;
            std::transform(bids.begin(), bids.end(), best.begin(), [](const Bid & one) { return one.n(); });
        }
    }
    return best;
}

std::vector<size_t> choose_equal_numbers(const std::vector<const Proposal *> & proposals, const Budget & budget,
                                         size_t n_texts, size_t most_rows) {
    const float price = budget.price();
    const float plain_cost = budget.cost(n_texts);
    std::vector<Bid> bids;
    size_t longest = 0;
    for (const Proposal * proposal : proposals) {
        bids.emplace_back(*proposal);
        longest = std::max(longest, proposal->limits.rows);
    }
    std::vector<size_t> best(bids.size(), 0);
    float best_worth = 0.0f;
    for (size_t n = 2; n <= std::min(longest, most_rows / n_texts); ++n) {
        float brought = 0.0f;
        for (Bid & bid : bids) {
            while (bid.is_open() && bid.next_fits() && bid.n_rows() + bid.next_rows() <= n) {
                bid.take();
            }
            brought += bid.worth();
        }
        const float worth = brought - price * (budget.cost(n_texts * n) - plain_cost);
        if (worth > best_worth) {
            best_worth = worth;
            std::transform(bids.begin(), bids.end(), best.begin(), [](const Bid & one) { return one.n(); });
        }
    }
    return best;
}

Plan settle(Proposal proposal, size_t n) {
    Plan plan = std::move(proposal.plan);
    const auto end = proposal.rows.begin() + static_cast<std::ptrdiff_t>(n);
    // Nodes were added in the order of their gains, so those chosen are the first ones.
    const auto n_drafted = std::count_if(proposal.rows.begin(), end, [](const PlannedRow & row) { return !row.masks; });
    plan.tree.truncate(static_cast<size_t>(n_drafted) + 1);
    plan.candidates.resize(plan.tree.size());
    plan.masks_of_node.assign(plan.tree.size(), 0);
    for (auto row = proposal.rows.begin(); row != end; ++row) {
        if (row->masks) {
            plan.masks_of_node[row->node] = proposal.limits.masks;
        } else {
            plan.expected += row->gain;
        }
    }
    return plan;
}

Plan make_plan(int32_t root_token, const Evidence & evidence, const Mixer & mixer, const Budget & budget,
               const PlanLimits & limits) {
    Proposal proposal = propose(root_token, evidence, mixer, budget, limits);
    const size_t n = limits.chain
                         ? proposal.rows.size()
                         : choose_numbers({&proposal}, budget, rows_before_drafts(limits), most_rows(limits))[0];
    return settle(std::move(proposal), n);
}

} // namespace mp
