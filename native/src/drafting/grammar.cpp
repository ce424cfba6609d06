#include "drafting/grammar.h"

#include <algorithm>
#include <bitset>

namespace mp {

namespace {

uint64_t mix(uint64_t digest, uint64_t word) {
    digest = (digest ^ word) * 0xD6E8FEB86659FD93ull;
    return digest ^ digest >> 32;
}

FollowerTable::Keys keys_of(uint64_t state, int32_t last) { return {state, mix(state, static_cast<uint32_t>(last))}; }

} // namespace

void GrammarSource::begin(mp_guide guide, void * data) {
    guide_ = guide;
    data_ = data;
}

std::optional<GrammarPlace> GrammarSource::look(const int32_t * drafted, size_t n) const {
    if (guide_ == nullptr) {
        return std::nullopt;
    }
    GrammarPlace place;
    place.allowed.assign((n_vocab_ + 31) / 32, 0);
    if (guide_(data_, drafted, n, place.allowed.data(), &place.forced) == 0) {
        return std::nullopt;
    }
    if (n_vocab_ % 32 != 0) {
        place.allowed.back() &= (1u << n_vocab_ % 32) - 1;
    }
    for (const uint32_t word : place.allowed) {
        place.n_allowed += std::bitset<32>(word).count();
        place.state = mix(place.state, word);
    }
    place.state = std::max<uint64_t>(place.state, 1);
    if (!place.allows(place.forced)) {
        place.forced = -1;
    }
    return place;
}

void GrammarSource::propose(const GrammarPlace & place, const NodeContext & node, CandidateSet & out) const {
    const auto forbidden =
        std::remove_if(out.items.begin(), out.items.end(), [&](const Candidate & c) { return !place.allows(c.token); });
    out.items.erase(forbidden, out.items.end());
    out.state = place.state;
    if (place.n_allowed <= most_added) {
        for (size_t i = 0; i < place.allowed.size(); ++i) {
            for (size_t bit = 0; bit < 32 && place.allowed[i] >> bit != 0; ++bit) {
                if ((place.allowed[i] >> bit & 1u) != 0) {
                    out.at(static_cast<int32_t>(32 * i + bit));
                }
            }
        }
        out.is_complete = true;
    }
    if (place.forced >= 0) {
        out.at(place.forced)[feature_forced] = 1.0f;
    }
    FollowerTable::List list = table_.find(keys_of(place.state, node.last()), n_orders);
    const size_t n_found = list.n;
    list.n = 0;
    for (size_t i = 0; i < n_found; ++i) { // another state may have the same digest
        if (place.allows(list.tokens[i])) {
            list.tokens[list.n] = list.tokens[i];
            list.logps[list.n++] = list.logps[i];
        }
    }
    out.add_list(list.tokens.data(), list.logps.data(), list.n, state_list);
}

void GrammarSource::learn(const CandidateSet & set, int32_t last, int32_t actual) {
    if (set.state != 0) {
        table_.learn(keys_of(set.state, last), n_orders, actual);
    }
}

} // namespace mp
