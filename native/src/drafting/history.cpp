#include "drafting/history.h"

#include <algorithm>

namespace mp {

size_t HistorySource::keys_of(const int32_t * end, size_t n_tokens, FollowerTable::Keys & keys) {
    const size_t n = std::min(n_orders, n_tokens);
    for (size_t i = 0; i < n; ++i) {
        keys[i] = key_of(end, i + 1);
    }
    return n;
}

void HistorySource::learn(const std::vector<int32_t> & tokens, size_t from) {
    FollowerTable::Keys keys;
    for (size_t at = std::max<size_t>(from, 1); at < tokens.size(); ++at) {
        table_.learn(keys, keys_of(tokens.data() + at, at, keys), tokens[at]);
    }
}

void HistorySource::propose(const NodeContext & node, CandidateSet & out) const {
    FollowerTable::Keys keys;
    const size_t n_keys = keys_of(node.tokens + node.n_tokens, node.n_tokens, keys);
    const FollowerTable::List list = table_.find(keys, n_keys);
    out.add_list(list.tokens.data(), list.logps.data(), list.n, history_list);
}

} // namespace mp
