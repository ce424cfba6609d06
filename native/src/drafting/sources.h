// Where drafts come from: each source looks at a node of the tree (the tokens that lead to it) and adds what
// it knows about the token that follows to a set of candidates. What the evidence is worth is the mixer's
// affair; how the tree grows from it is the planner's.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mp {

// Kinds of evidence about one candidate. Log-probabilities are of the source's own distribution.
enum Feature {
    feature_probe,          // log-probability under the mask row, from its floor up
    feature_probe_listed,   // 1 if the mask row ranks it
    feature_probe_unlisted, // 1 if there is a mask row and it does not
    feature_recent,         // the same after this token where it was last verified
    feature_recent_listed,
    feature_recent_unlisted,
    feature_table, // the same after this token alone, from the model's table
    feature_table_listed,
    feature_table_unlisted,
    feature_history, // the same in texts that the model wrote earlier
    feature_history_listed,
    feature_history_unlisted,
    feature_match_1, // the longest match that it continues is 1 token long
    feature_match_2, //
    feature_match_3, //
    feature_match_4_5,
    feature_match_6_8,
    feature_match_9_15,
    feature_match_16_31,
    feature_match_32_47,
    feature_match_48,  // 48 or more
    feature_latest,    // it continues the latest of the longest matches
    feature_share,     // log of its share among the matches looked at
    feature_hit_rate,  // log-odds with which such latest matches have come true lately
    feature_none_bias, // of the "none of these" candidate only
    n_features
};

constexpr float list_floor = -8.0f; // log-probabilities count from here up

using Features = std::array<float, n_features>;

struct Candidate {
    int32_t token;
    float p; // probability after mixing
    Features features;
};

// Candidates for the token that follows one node.
struct CandidateSet {
    std::vector<Candidate> items;
    float p_none = 1.0f; // that none of them follows
    size_t best = 0;     // the likeliest, and its log-odds before calibration
    float best_log_odds = 0.0f;

    // A ranked list of tokens with log-probabilities: fills a feature, "listed" after it and "unlisted" after that.
    void add_list(const int32_t * tokens, const float * logps, size_t n, Feature feature) {
        for (size_t i = 0; i < n; ++i) {
            Features & features = at(tokens[i]);
            features[feature] = logps[i] > list_floor ? std::min(logps[i], 0.0f) - list_floor : 0.0f;
            features[feature + 1] = 1.0f;
        }
        for (Candidate & item : items) {
            item.features[feature + 2] = n > 0 ? 1.0f - item.features[feature + 1] : 0.0f;
        }
    }

    Features & at(int32_t token) {
        for (Candidate & item : items) {
            if (item.token == token) {
                return item.features;
            }
        }
        items.push_back({token, 0.0f, {}});
        return items.back().features;
    }
};

// The tokens that lead to a node, the node's own last, and how far the node is from the tree's root.
struct NodeContext {
    const int32_t * tokens;
    size_t n_tokens;
    int32_t depth;

    int32_t last() const { return tokens[n_tokens - 1]; }
};

// A key of the last `order` tokens before end; equal n-grams have equal keys.
inline uint64_t key_of(const int32_t * end, size_t order) {
    uint64_t key = 0x9E3779B97F4A7C15ull * order;
    for (size_t i = 1; i <= order; ++i) {
        key = (key ^ static_cast<uint32_t>(end[-static_cast<ptrdiff_t>(i)])) * 0xD6E8FEB86659FD93ull;
        key ^= key >> 32;
    }
    return key;
}

} // namespace mp
