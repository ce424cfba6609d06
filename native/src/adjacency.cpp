#include "adjacency.h"

#include <algorithm>

namespace mp {

namespace {

constexpr float floor_logp = -8.0f; // features run from 0 here

} // namespace

void AdjacencySource::refresh(int32_t token, const Candidates & ranked) {
    if (recent_.empty()) {
        recent_.resize(n_vocab_ * width);
    }
    Entry * row = recent_.data() + static_cast<size_t>(token) * width;
    const size_t n = std::min(width, ranked.token.size());
    for (size_t i = 0; i < width; ++i) {
        row[i] = i < n ? Entry{ranked.token[i], ranked.logp[i]} : Entry{};
    }
}

void AdjacencySource::set_table(const int32_t * tokens, const float * logps) {
    table_.resize(n_vocab_ * width);
    for (size_t i = 0; i < table_.size(); ++i) {
        table_[i] = {tokens[i], logps[i]};
    }
}

void AdjacencySource::propose(const NodeContext & node, CandidateSet & out) const {
    const auto add = [&](const std::vector<Entry> & list, Feature logp, Feature listed) {
        if (list.empty()) {
            return;
        }
        const Entry * row = list.data() + static_cast<size_t>(node.last()) * width;
        for (size_t i = 0; i < width && row[i].token >= 0; ++i) {
            Features & features = out.at(row[i].token);
            features[logp] = std::max(0.0f, row[i].logp - floor_logp);
            features[listed] = 1.0f;
        }
    };
    add(recent_, feature_recent, feature_recent_listed);
    add(table_, feature_table, feature_table_listed);
}

} // namespace mp
