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

// Kinds of evidence about one candidate, by source. What each is worth at the start stands in mixer.cpp.
enum Feature {
    feature_guess, // the list of a mask that stands for this token
    feature_guess_listed,
    feature_guess_unlisted,
    feature_recent, // the model's list after the token before, where that was last verified
    feature_recent_listed,
    feature_recent_unlisted,
    feature_table, // the model's list after the token before alone
    feature_table_listed,
    feature_table_unlisted,
    feature_history, // what followed in texts that the model wrote earlier
    feature_history_listed,
    feature_history_unlisted,
    feature_forced, // 1 if the text that the grammar forces begins with it
    feature_state,  // what followed where the grammar allowed the same
    feature_state_listed,
    feature_state_unlisted,
    feature_match_1, // 1 if the longest match that it continues is 1 token long; so for the other lengths
    feature_match_2,
    feature_match_3,
    feature_match_4_5,
    feature_match_6_8,
    feature_match_9_15,
    feature_match_16_31,
    feature_match_32_47,
    feature_match_48,  // 48 or more
    feature_latest,    // 1 if it continues the latest of the longest matches
    feature_share,     // log of its share among the matches looked at
    feature_hit_rate,  // log-odds with which such latest matches have come true lately
    feature_none_bias, // 1 for "none of these", which is no candidate
    n_features
};
constexpr size_t n_match_lengths = feature_match_48 - feature_match_1 + 1;

// What a ranked list of candidates says of one of them.
struct ListFeatures {
    Feature logp;     // its log-probability in the list, counted from list_floor up
    Feature listed;   // 1 if the list has it
    Feature unlisted; // 1 if there is a list and it does not
};
constexpr ListFeatures guess_list{feature_guess, feature_guess_listed, feature_guess_unlisted};
constexpr ListFeatures recent_list{feature_recent, feature_recent_listed, feature_recent_unlisted};
constexpr ListFeatures table_list{feature_table, feature_table_listed, feature_table_unlisted};
constexpr ListFeatures history_list{feature_history, feature_history_listed, feature_history_unlisted};

constexpr ListFeatures state_list{feature_state, feature_state_listed, feature_state_unlisted};

constexpr float list_floor = -8.0f; // the least log-probability that counts

using Features = std::array<float, n_features>;

struct Candidate {
    int32_t token;
    float p; // probability that it follows, once mixed
    Features features;
};

// Candidates for the token that follows one node.
struct CandidateSet {
    std::vector<Candidate> items;
    float p_none = 1.0f;        // probability that none of them follows
    size_t best = 0;            // the likeliest, in items
    float best_log_odds = 0.0f; // its log-odds before they were calibrated
    uint64_t state = 0;         // where in a grammar the node is; 0: not known
    bool is_complete = false;   // one of them follows for certain

    // Adds what a ranked list of n tokens says, with log-probabilities.
    void add_list(const int32_t * tokens, const float * logps, size_t n, const ListFeatures & list) {
        for (size_t i = 0; i < n; ++i) {
            Features & features = at(tokens[i]);
            features[list.logp] = logps[i] > list_floor ? std::min(logps[i], 0.0f) - list_floor : 0.0f;
            features[list.listed] = 1.0f;
        }
        for (Candidate & item : items) {
            item.features[list.unlisted] = n > 0 ? 1.0f - item.features[list.listed] : 0.0f;
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

// The tokens that lead to a node, the node's own last.
struct NodeContext {
    const int32_t * tokens;
    size_t n_tokens;

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
