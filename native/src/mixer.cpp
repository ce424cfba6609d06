#include "mixer.h"

#include <algorithm>
#include <cmath>

namespace mp {

namespace {

constexpr float learning_rate = 0.02f;
constexpr float prior_squares = 1.0f; // how much the start weights are trusted

float score(const Features & weights, const Features & features) {
    float sum = 0.0f;
    for (size_t i = 0; i < n_features; ++i) {
        sum += weights[i] * features[i];
    }
    return sum;
}

} // namespace

Mixer::Mixer() {
    weights_.fill(0.0f);
    weights_[feature_probe] = weights_[feature_recent] = weights_[feature_table] = 0.5f;
    weights_[feature_none_bias] = 4.0f;
    for (int i = 0; i < 6; ++i) {
        weights_[feature_match_1 + i] = 2.0f + 0.8f * static_cast<float>(i);
    }
    squares_.fill(prior_squares);
}

void Mixer::mix(CandidateSet & set) const {
    const float none = weights_[feature_none_bias];
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
}

void Mixer::learn(const CandidateSet & set, int32_t actual) {
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
