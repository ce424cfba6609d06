#include "drafting/history.h"

#include <algorithm>
#include <cmath>

namespace mp {

namespace {

// Taken off every count for what was never seen, which the shorter context foretells (absolute discounting: Ney, Essen
// and Kneser 1994).
constexpr float discount = 0.6f;
constexpr uint16_t most_seen = 1u << 12; // then all counts are halved

struct Follower {
    int32_t token;
    float p;
};

} // namespace

std::pair<size_t, uint32_t> HistorySource::place_of(const int32_t * end, size_t order) {
    const uint64_t key = key_of(end, order);
    return {(order - 1) * n_contexts + key % n_contexts, static_cast<uint32_t>(key >> 32)};
}

void HistorySource::Context::halve() {
    seen /= 2;
    for (uint16_t & n : count) {
        n /= 2;
    }
}

void HistorySource::Context::add(int32_t follower) {
    if (++seen == most_seen) {
        halve();
    }
    for (size_t i = 0; i < n_followers; ++i) {
        if (count[i] > 0 && token[i] == follower) {
            ++count[i];
            return;
        }
    }
    const size_t rarest = static_cast<size_t>(std::min_element(count.begin(), count.end()) - count.begin());
    if (count[rarest] > 1) {
        --count[rarest]; // it has been seen more often than the new one, up to now
        return;
    }
    token[rarest] = follower;
    count[rarest] = 1;
}

void HistorySource::learn(const std::vector<int32_t> & tokens, size_t from) {
    for (size_t at = std::max<size_t>(from, 1); at < tokens.size(); ++at) {
        if (contexts_.empty()) {
            contexts_.resize(n_orders * n_contexts);
        }
        for (size_t order = 1; order <= std::min(n_orders, at); ++order) {
            const auto [place, tag] = place_of(tokens.data() + at, order);
            Context & context = contexts_[place];
            if (context.seen > 0 && context.tag != tag) {
                context.halve(); // a context that is met often outlives several others at its place
            }
            if (context.seen == 0) {
                context = {tag, 0, {}, {}};
            }
            if (context.tag == tag) {
                context.add(tokens[at]);
            }
        }
    }
}

void HistorySource::propose(const NodeContext & node, CandidateSet & out) const {
    if (contexts_.empty()) {
        return;
    }
    std::array<Follower, n_orders * n_followers> followers;
    const auto begin = followers.begin();
    auto end = begin;
    for (size_t order = 1; order <= std::min(n_orders, node.n_tokens); ++order) {
        const auto [place, tag] = place_of(node.tokens + node.n_tokens, order);
        const Context & context = contexts_[place];
        if (context.seen == 0 || context.tag != tag) {
            continue;
        }
        std::array<float, n_followers> p{};
        float left = 1.0f;
        for (size_t i = 0; i < n_followers; ++i) {
            p[i] = context.count[i] > 0 ? (static_cast<float>(context.count[i]) - discount) / context.seen : 0.0f;
            left -= p[i];
        }
        std::for_each(begin, end, [left](Follower & shorter) { shorter.p *= left; });
        for (size_t i = 0; i < n_followers; ++i) {
            if (p[i] == 0.0f) {
                continue;
            }
            const auto known =
                std::find_if(begin, end, [&](const Follower & f) { return f.token == context.token[i]; });
            if (known == end) {
                *end++ = {context.token[i], p[i]};
            } else {
                known->p += p[i];
            }
        }
    }
    std::sort(begin, end, [](const Follower & a, const Follower & b) { return a.p > b.p; });
    const size_t n = std::min(n_listed, static_cast<size_t>(end - begin));
    std::array<int32_t, n_listed> tokens;
    std::array<float, n_listed> logps;
    for (size_t i = 0; i < n; ++i) {
        tokens[i] = followers[i].token;
        logps[i] = std::log(followers[i].p);
    }
    out.add_list(tokens.data(), logps.data(), n, history_list);
}

} // namespace mp
