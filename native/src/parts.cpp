#include "parts.h"

#include <algorithm>

namespace mp {

namespace {

struct Draft {
    Part * part;
    Proposal proposal;
};

size_t n_pending(const Part & part) { return part.lane->pending().size(); }
size_t n_rows(const Part & part) { return part.lane->block().n_rows(); }
bool are_chains(const Parts & parts) { return !parts.empty() && parts.front().lane->cache().takes_chains_only(); }
bool in_prompt(const Part & part) { return part.lane->phase() == Lane::Phase::prefill; }

class Layout {
public:
    Layout(Parts & parts, size_t most_rows, size_t piece)
        : parts_(parts), n_left_(most_rows), piece_(piece), are_chains_(are_chains(parts)) {}

    void divide();
    void lay_out();

private:
    void divide_pieces();
    void draft(Part & part);
    void take(Part & part, Plan plan);
    void settle(std::vector<Draft> & drafts);
    void fill();

    Parts & parts_;
    size_t n_left_; // rows that the pass may still have
    size_t piece_;
    bool are_chains_;
    size_t n_rows_ = 0;  // that it has so far, of chains without pieces
    size_t n_texts_ = 0; // parts that are no pieces
    std::vector<Draft> drafts_;
};

// Gives each part what it must have: all that is pending, or a piece of it where that is much.
void Layout::divide() {
    parts_.resize(std::min(parts_.size(), n_left_));
    const size_t longest = are_chains_ ? 1 : piece_; // that is no piece
    size_t n_to_come = parts_.size();
    for (Part & part : parts_) {
        --n_to_come;
        const size_t n = n_pending(part);
        part.is_piece = in_prompt(part) || (parts_.size() > 1 && n > longest) || n + n_to_come > n_left_;
        n_left_ -= part.is_piece ? 1 : n;
    }
    divide_pieces();
    for (const Part & part : parts_) {
        n_rows_ += !part.is_piece ? n_pending(part) : are_chains_ ? 0 : part.n_piece;
        n_texts_ += part.is_piece ? 0 : 1;
    }
}

// Pieces fill the pass up to its best size, or wholly where no text waits for its next token, and have equal shares of
// that, so that a short prompt does not wait for a long one. Each has a row already.
void Layout::divide_pieces() {
    size_t n_others = 0;
    std::vector<Part *> pieces;
    for (Part & part : parts_) {
        if (part.is_piece) {
            // What follows a committed token is looked at only where nothing else is pending.
            part.n_piece = n_pending(part) - (in_prompt(part) ? 0 : 1);
            pieces.push_back(&part);
        } else if (!are_chains_) {
            n_others += n_pending(part);
        }
    }
    std::sort(pieces.begin(), pieces.end(), [](const Part * a, const Part * b) { return a->n_piece < b->n_piece; });
    const size_t n_most = n_left_ + pieces.size();
    const bool nobody_waits = pieces.size() == parts_.size();
    const size_t wanted = nobody_waits ? n_most : piece_ - std::min(piece_, n_others);
    size_t n_shared = std::min(n_most, std::max(pieces.size(), wanted));
    n_left_ = n_most;
    for (size_t i = 0; i < pieces.size(); ++i) {
        size_t & n = pieces[i]->n_piece;
        n = std::min(n, n_shared / (pieces.size() - i));
        n_shared -= n;
        n_left_ -= n;
    }
}

void Layout::lay_out() {
    for (Part & part : parts_) {
        try {
            part.is_piece ? part.lane->lay_out_piece(part.n_piece) : draft(part);
        } catch (...) {
            part.fail();
        }
    }
    while (!drafts_.empty()) { // those with the costs of the first one
        const Market * market = &drafts_.front().part->lane->market();
        const auto end = std::stable_partition(drafts_.begin(), drafts_.end(), [market](const Draft & one) {
            return &one.part->lane->market() == market;
        });
        std::vector<Draft> others(std::make_move_iterator(end), std::make_move_iterator(drafts_.end()));
        drafts_.erase(end, drafts_.end());
        settle(drafts_);
        drafts_ = std::move(others);
    }
    if (are_chains_) {
        fill();
    }
}

// What a part drafts where that is its own to say; else what it proposes.
void Layout::draft(Part & part) {
    Lane & lane = *part.lane;
    PlanLimits limits = lane.limits();
    limits.rows = std::min(limits.rows, n_pending(part) + (are_chains_ ? n_left_ / n_texts_ : n_left_));
    limits.others = n_rows_ - n_pending(part);
    lane.market().open(n_texts_);
    const int32_t root = lane.pending().back();
    if (parts_.size() > 1 && lane.drafter().proposes()) {
        drafts_.push_back({&part, lane.drafter().propose(root, limits)});
    } else {
        take(part, lane.drafter().plan(root, limits));
    }
}

void Layout::take(Part & part, Plan plan) {
    part.lane->lay_out(std::move(plan));
    const size_t n_drafts = part.lane->block().n_rows() - n_pending(part);
    n_rows_ += n_drafts;
    n_left_ -= n_drafts;
}

// The rows that earn most among proposals with the same costs.
void Layout::settle(std::vector<Draft> & drafts) {
    std::vector<const Proposal *> proposals;
    for (const Draft & one : drafts) {
        proposals.push_back(&one.proposal);
    }
    const Budget & budget = drafts.front().part->lane->drafter().budget();
    const std::vector<size_t> numbers = are_chains_
                                            ? choose_equal_numbers(proposals, budget, n_texts_, n_texts_ + n_left_)
                                            : choose_numbers(proposals, budget, n_rows_, n_rows_ + n_left_);
    for (size_t i = 0; i < drafts.size(); ++i) {
        Part & part = *drafts[i].part;
        try {
            take(part, part.lane->drafter().settle(std::move(drafts[i].proposal), numbers[i]));
        } catch (...) {
            part.fail();
        }
    }
}

// Texts have as many rows as the one that has most.
void Layout::fill() {
    size_t most = 0;
    for (const Part & part : parts_) {
        most = std::max(most, part.is_piece || part.is_out ? 0 : n_rows(part));
    }
    for (const Part & part : parts_) {
        if (!part.is_piece && !part.is_out) {
            part.lane->fill(most);
        }
    }
}

std::vector<Parts> by_rows(const Parts & parts) {
    std::vector<Parts> groups;
    for (const Part & part : parts) {
        const auto fits = [&part](const Parts & one) {
            return !part.goes_alone && !one.front().goes_alone && n_rows(one.front()) == n_rows(part);
        };
        const auto found = std::find_if(groups.begin(), groups.end(), fits);
        found == groups.end() ? groups.push_back({part}) : found->push_back(part);
    }
    return groups;
}

} // namespace

void lay_out_rows(Parts & parts, size_t most_rows, size_t piece) {
    Layout layout(parts, most_rows, piece);
    layout.divide();
    layout.lay_out();
}

std::vector<Parts> group(Parts & parts) {
    drop_failed(parts);
    try {
        return are_chains(parts) ? by_rows(parts) : std::vector<Parts>{parts};
    } catch (...) {
        for (Part & part : parts) {
            part.fail();
        }
        return {};
    }
}

void observe_costs(const Parts & parts, size_t n_rows, double decode_ms) {
    const bool has_pieces = std::any_of(parts.begin(), parts.end(), [](const Part & part) { return part.is_piece; });
    size_t n_tokens = 0;
    std::vector<Market *> markets;
    for (const Part & part : parts) {
        if (part.is_out || part.is_piece) {
            continue;
        }
        n_tokens += static_cast<size_t>(part.lane->report().n_tokens);
        Market * market = &part.lane->market();
        if (part.lane->drafter().proposes() && std::find(markets.begin(), markets.end(), market) == markets.end()) {
            markets.push_back(market);
        }
    }
    for (Market * market : markets) {
        if (has_pieces) {
            market->prices().observe_prompts(n_rows, decode_ms);
        } else {
            market->prices().observe(n_rows, n_tokens, decode_ms);
        }
    }
}

} // namespace mp
