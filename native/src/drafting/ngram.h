// N-gram source: where the last tokens stood before in prompt and output, and what followed there. Learns a
// token in constant time and looks at a bounded number of earlier places per node. Knows one text; texts before
// it are the history source's.
#pragma once

#include "drafting/sources.h"

#include <unordered_map>

namespace mp {

class NgramSource {
public:
    static constexpr size_t max_match = 48; // tokens compared; a node's context need not be longer

    void clear();
    void push(int32_t token);
    size_t size() const { return tokens_.size(); }
    const std::vector<int32_t> & tokens() const { return tokens_; }

    void propose(const NodeContext & node, CandidateSet & out) const;
    // What followed a node for which it had proposed: keeps count of how often matches come true lately, which
    // tells text that copies from text that only resembles.
    void learn(const CandidateSet & set, int32_t actual);

private:
    static constexpr size_t n_orders = 3; // keyed by the last 1, 2 and 3 tokens
    static constexpr int max_places = 8;  // latest places looked at per order

    struct HitRate {
        float hits = 1.0f;
        float misses = 1.0f;
    };
    std::array<HitRate, n_match_lengths> hit_rates_; // one for each of the match features
    std::vector<int32_t> tokens_;
    // For each order: key of an n-gram -> the position after its latest occurrence, and from each such
    // position to the one before.
    std::array<std::unordered_map<uint64_t, int32_t>, n_orders> latest_;
    std::array<std::vector<int32_t>, n_orders> previous_;
};

} // namespace mp
