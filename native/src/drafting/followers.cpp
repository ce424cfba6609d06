#include "drafting/followers.h"

#include <algorithm>
#include <cmath>

namespace mp {

namespace {

// Taken off every count for what was never seen, which the wider context foretells (absolute discounting: Ney, Essen
// and Kneser 1994).
constexpr float discount = 0.6f;
constexpr uint16_t most_seen = 1u << 12; // then all counts are halved

struct Follower {
    int32_t token;
    float p;
};

} // namespace

void FollowerTable::Context::halve() {
    seen /= 2;
    for (uint16_t & n : count) {
        n /= 2;
    }
}

void FollowerTable::Context::add(int32_t follower) {
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

void FollowerTable::learn(const Keys & keys, size_t n_keys, int32_t follower) {
    if (contexts_.empty()) {
        contexts_.resize(n_orders_ * n_contexts_);
    }
    for (size_t order = 0; order < n_keys; ++order) {
        Context & context = contexts_[place_of(keys[order], order)];
        const uint32_t tag = tag_of(keys[order]);
        if (context.seen > 0 && context.tag != tag) {
            context.halve(); // a context that is met often outlives several others at its place
        }
        if (context.seen == 0) {
            context = {tag, 0, {}, {}};
        }
        if (context.tag == tag) {
            context.add(follower);
        }
    }
}

FollowerTable::List FollowerTable::find(const Keys & keys, size_t n_keys) const {
    List list;
    if (contexts_.empty()) {
        return list;
    }
    std::array<Follower, most_orders * n_followers> followers;
    const auto begin = followers.begin();
    auto end = begin;
    for (size_t order = 0; order < n_keys; ++order) {
        const Context & context = contexts_[place_of(keys[order], order)];
        if (context.seen == 0 || context.tag != tag_of(keys[order])) {
            continue;
        }
        std::array<float, n_followers> p{};
        float left = 1.0f;
        for (size_t i = 0; i < n_followers; ++i) {
            p[i] = context.count[i] > 0 ? (static_cast<float>(context.count[i]) - discount) / context.seen : 0.0f;
            left -= p[i];
        }
        std::for_each(begin, end, [left](Follower & wider) { wider.p *= left; });
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
    list.n = std::min(n_listed, static_cast<size_t>(end - begin));
    for (size_t i = 0; i < list.n; ++i) {
        list.tokens[i] = followers[i].token;
        list.logps[i] = std::log(followers[i].p);
    }
    return list;
}

} // namespace mp
