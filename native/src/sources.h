// Where drafts come from: each source looks at a node of the tree (the tokens that lead to it) and adds what
// it knows about the token that follows to a set of candidates. What the evidence is worth is the mixer's
// affair; how the tree grows from it is the planner's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mp {

// Kinds of evidence about one candidate. Log-probabilities are of the source's own distribution.
enum Feature {
    feature_probe,         // log-probability under the mask row, from its floor up
    feature_probe_listed,  // 1 if the mask row ranks it
    feature_recent,        // log-probability after this token where it was last verified
    feature_recent_listed, //
    feature_table,         // log-probability after this token alone, from the model's table
    feature_table_listed,  //
    feature_match_1,       // the longest match that it continues is 1 token long
    feature_match_2,       //
    feature_match_3,       //
    feature_match_4_5,     //
    feature_match_6_8,     //
    feature_match_9,       // 9 or more
    feature_latest,        // it continues the latest of the longest matches
    feature_share,         // log of its share among the matches looked at
    feature_none_bias,     // of the "none of these" candidate only
    n_features
};

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

} // namespace mp
