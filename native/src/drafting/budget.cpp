#include "drafting/budget.h"

#include <algorithm>
#include <cmath>

namespace mp {

namespace {

constexpr double memory = 0.95; // what a pass leaves of the sums before it: the last 20 or so count
constexpr double long_memory = 0.99;
constexpr double caution = 0.05;        // dearer rows for every plain pass that drafts have lost
constexpr double doubt = 8.0;           // drafts' worth of trust to start with
constexpr float pace_step = 0.1f;       // how far the machine's pace moves towards what was observed
constexpr float measured_weight = 2.0f; // passes that the measurement at load counts for
constexpr float most_weight = 5.0f;     // passes that a correction remembers
constexpr float most_surprise = 0.2f;   // what one pass may say against what is known: most that differ more were
                                        // interrupted by something else
constexpr int patience = 128;           // passes without a draft before rows are taken for cheaper,
constexpr float most_curiosity = 0.25f; // by so much
constexpr int curious_after = 512;      // after so many

float surprise(float difference) { return std::clamp(difference, -most_surprise, most_surprise); }

} // namespace

// --- prices -----------------------------------------------------------------------------------------

Prices::Prices(std::vector<float> cost, bool refine, float change, size_t n_texts)
    : base_(std::move(cost)), correction_(base_.size(), 1.0f), seen_(base_.size(), measured_weight), refine_(refine),
      change_(change), n_texts_(n_texts) {}

void Prices::begin_text() {
    tokens_ = spent_ = saved_ = 0.0;
    last_rows_ = 0;
}

float Prices::base(size_t rows) const {
    const size_t n = base_.size();
    if (rows <= n) {
        return base_[rows - 1];
    }
    const float slope = n > 1 ? std::max(0.0f, base_[n - 1] - base_[n - 2]) : 0.0f;
    return base_[n - 1] + slope * static_cast<float>(rows - n);
}

float Prices::steady(size_t rows) const { return base(rows) * correction_[std::min(rows, correction_.size()) - 1]; }

float Prices::cost(size_t rows) const { return steady(rows) + (changes(rows) ? change_ : 0.0f); }

float Prices::price() const {
    const float plain = static_cast<float>(n_texts_) / steady(n_texts_);
    const float kept_up = spent_ > 0.0 ? std::max(plain, static_cast<float>(tokens_ / spent_)) : plain;
    const float cautious = kept_up * static_cast<float>(1.0 + caution * std::max(0.0, -saved_));
    const float waited = static_cast<float>(undrafted_ - patience) / (curious_after - patience);
    return cautious * (1.0f - most_curiosity * std::clamp(waited, 0.0f, 1.0f));
}

void Prices::observe(size_t rows, size_t tokens, double cost_ms) {
    const double plain_passes = cost(rows) / steady(n_texts_);
    saved_ = long_memory * saved_ + static_cast<double>(tokens) / static_cast<double>(n_texts_) - plain_passes;
    tokens_ = memory * tokens_ + static_cast<double>(tokens);
    spent_ = memory * spent_ + cost(rows);
    refine_by(rows, cost_ms);
}

void Prices::observe_prompts(size_t rows, double cost_ms) { refine_by(rows, cost_ms); }

void Prices::refine_by(size_t rows, double cost_ms) {
    const double change = changes(rows) ? change_ * scale_ : 0.0;
    last_rows_ = rows;
    if (!refine_) {
        return;
    }
    undrafted_ = rows == n_texts_ ? std::min(undrafted_ + 1, curious_after) : 0;
    if (!(cost_ms > 0.0)) { // a clock too coarse for the pass says nothing of it
        return;
    }
    const float observed = static_cast<float>(cost_ms - change) / base(rows);
    // Plain passes tell the machine's pace; others tell the curve's shape.
    if (rows == n_texts_) {
        scale_ += pace_step * scale_ * surprise(observed / scale_ - 1.0f);
        return;
    }
    // What a pass of so many rows shows holds for its neighbours too, the less the farther they are, and most for
    // sizes that few passes had.
    for (size_t n = n_texts_ + 1; n <= correction_.size(); ++n) {
        const float distance = std::fabs(std::log2(static_cast<float>(n) / static_cast<float>(rows)));
        const float weight = std::exp2(-3.0f * distance);
        seen_[n - 1] = std::min(seen_[n - 1] + weight, most_weight);
        correction_[n - 1] += weight / seen_[n - 1] * surprise(observed / scale_ - correction_[n - 1]);
    }
}

// --- markets ----------------------------------------------------------------------------------------

Market::Market(std::vector<float> cost, bool refine, float change)
    : cost_(std::move(cost)), refine_(refine), change_(change) {
    open(1);
}

void Market::open(size_t n_texts) {
    n_texts_ = n_texts;
    while (by_texts_.size() < n_texts) {
        by_texts_.emplace_back(cost_, refine_, change_, by_texts_.size() + 1);
    }
}

void Market::begin_text() {
    for (Prices & prices : by_texts_) {
        prices.begin_text();
    }
}

// --- budgets ----------------------------------------------------------------------------------------

Budget::Budget(std::vector<float> cost, bool refine, float change)
    : market_(std::make_shared<Market>(std::move(cost), refine, change)) {}

float Budget::trust() const { return static_cast<float>(std::min(1.0, (doubt + accepted_) / (doubt + promised_))); }

void Budget::begin_text() {
    begin_trust();
    market_->begin_text();
}

void Budget::observe_drafts(size_t tokens, float expected) {
    accepted_ = memory * accepted_ + static_cast<double>(tokens) - 1.0;
    promised_ = memory * promised_ + static_cast<double>(expected) - 1.0;
}

void Budget::observe(size_t rows, size_t tokens, float expected, double cost_ms) {
    observe_drafts(tokens, expected);
    market_->prices().observe(rows, tokens, cost_ms);
}

} // namespace mp
