#include "drafting/adjacency.h"

#include "error.h"

#include <algorithm>

namespace mp {

void AdjacencySource::refresh(int32_t token, const Candidates & ranked) {
    if (recent_.tokens.empty()) {
        recent_.logps.assign(n_vocab_ * width, 0.0f);
        recent_.tokens.assign(n_vocab_ * width, -1); // last: the table is in use once it is there
    }
    const size_t row = static_cast<size_t>(token) * width;
    const size_t n = std::min(width, ranked.token.size());
    std::fill_n(recent_.tokens.begin() + row, width, -1);
    std::copy_n(ranked.token.begin(), n, recent_.tokens.begin() + row);
    std::copy_n(ranked.logp.begin(), n, recent_.logps.begin() + row);
}

void AdjacencySource::set_table(const int32_t * tokens, const float * logps) {
    for (size_t i = 0; i < n_vocab_ * width; ++i) {
        if (tokens[i] < -1 || tokens[i] >= static_cast<int64_t>(n_vocab_)) {
            throw Error(MP_ERROR_ARGUMENT, "the adjacency table names token " + std::to_string(tokens[i]) +
                                               " of a vocabulary of " + std::to_string(n_vocab_));
        }
    }
    alone_.tokens.assign(tokens, tokens + n_vocab_ * width);
    alone_.logps.assign(logps, logps + n_vocab_ * width);
}

void AdjacencySource::propose(const NodeContext & node, CandidateSet & out) const {
    propose_from(recent_, recent_list, node, out);
    propose_from(alone_, table_list, node, out);
}

void AdjacencySource::propose_from(const Table & table, const ListFeatures & list, const NodeContext & node,
                                   CandidateSet & out) const {
    if (table.tokens.empty()) {
        return;
    }
    const size_t row = static_cast<size_t>(node.last()) * width;
    const auto begin = table.tokens.begin() + row;
    const size_t n = std::find(begin, begin + width, -1) - begin;
    out.add_list(table.tokens.data() + row, table.logps.data() + row, n, list);
}

} // namespace mp
