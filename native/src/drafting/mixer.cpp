#include "drafting/mixer.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mp {

namespace {

// What evidence is worth before anything is learned: fitted to answers of a 135M chat model; see docs/drafting.md.
struct StartWeight {
    Feature feature;
    float weight;
};
constexpr StartWeight start_weights[] = {
    {feature_guess, 0.64f},           {feature_guess_listed, -1.00f},   {feature_guess_unlisted, 1.45f},

    {feature_recent, 0.05f},          {feature_recent_listed, -0.39f},  {feature_recent_unlisted, -0.58f},

    {feature_table, 0.33f},           {feature_table_listed, -0.35f},   {feature_table_unlisted, -0.19f},

    {feature_history, 0.39f},         {feature_history_listed, -1.00f}, {feature_history_unlisted, -0.16f},

    {feature_forced, 2.00f},          {feature_state, 0.60f},           {feature_state_listed, -1.00f},
    {feature_state_unlisted, -0.20f},

    {feature_match_1, 2.00f},         {feature_match_2, 3.73f},         {feature_match_3, 4.02f},
    {feature_match_4_5, 4.82f},       {feature_match_6_8, 4.90f},       {feature_match_9_15, 5.50f},
    {feature_match_16_31, 6.15f},     {feature_match_32_47, 7.95f},     {feature_match_48, 9.56f},
    {feature_latest, 0.46f},          {feature_share, 0.55f},           {feature_hit_rate, 0.60f},

    {feature_none_bias, 3.07f},
};
static_assert(sizeof start_weights / sizeof *start_weights == n_features, "each kind of evidence has a start weight");

constexpr float learning_rate = 0.08f;
constexpr float calibration_rate = 0.003f;
constexpr float prior_squares = 3.0f; // how much the start weights are trusted

float log_odds(float p) {
    const float q = std::clamp(p, 1e-4f, 1.0f - 1e-4f);
    return std::log(q / (1.0f - q));
}

float score(const Features & weights, const Features & features) {
    float sum = 0.0f;
    for (size_t i = 0; i < n_features; ++i) {
        sum += weights[i] * features[i];
    }
    return sum;
}

} // namespace

Mixer::Mixer() {
    for (const StartWeight & start : start_weights) {
        weights_[start.feature] = start.weight;
    }
    squares_.fill(prior_squares);
}

void Mixer::mix(CandidateSet & set) const {
    if (set.items.empty()) {
        return;
    }
    const float none = set.is_complete ? -std::numeric_limits<float>::infinity() : weights_[feature_none_bias];
    float max = none;
    for (Candidate & item : set.items) {
        item.p = score(weights_, item.features);
        max = std::max(max, item.p);
    }
    float total = std::exp(none - max);
    for (Candidate & item : set.items) {
        item.p = std::exp(item.p - max);
        total += item.p;
    }
    for (Candidate & item : set.items) {
        item.p /= total;
    }
    set.p_none = std::exp(none - max) / total;
    const auto best = std::max_element(set.items.begin(), set.items.end(),
                                       [](const Candidate & a, const Candidate & b) { return a.p < b.p; });
    set.best = best - set.items.begin();
    if (set.is_complete) {
        return; // a winner among few, which promises no more than it holds
    }
    const float raw = best->p;
    const float corrected = 1.0f / (1.0f + std::exp(-slope_ * log_odds(raw) - offset_));
    const float rest = (1.0f - corrected) / (1.0f - std::min(raw, 0.9999f));
    for (Candidate & item : set.items) {
        item.p *= rest;
    }
    set.p_none *= rest;
    best->p = corrected;
    set.best_log_odds = log_odds(raw);
}

void Mixer::learn(const CandidateSet & set, int32_t actual) {
    if (!set.items.empty() && !set.is_complete) {
        const Candidate & best = set.items[set.best];
        const float error = (best.token == actual ? 1.0f : 0.0f) - best.p;
        slope_ += calibration_rate * error * set.best_log_odds;
        offset_ += calibration_rate * error;
    }
    Features gradient{};
    bool listed = false;
    for (const Candidate & item : set.items) {
        const float error = (item.token == actual ? 1.0f : 0.0f) - item.p;
        listed |= item.token == actual;
        for (size_t i = 0; i < n_features; ++i) {
            gradient[i] += error * item.features[i];
        }
    }
    gradient[feature_none_bias] = (listed ? 0.0f : 1.0f) - set.p_none;
    for (size_t i = 0; i < n_features; ++i) {
        squares_[i] += gradient[i] * gradient[i];
        weights_[i] += learning_rate * gradient[i] / std::sqrt(squares_[i]);
    }
}

} // namespace mp
