#include "drafting/ngram.h"

#include <algorithm>
#include <cmath>

namespace mp {

namespace {

constexpr float hit_memory = 0.88f; // per match looked at: the last eight or so count

Feature match_feature(size_t length) {
    if (length <= 3) {
        return static_cast<Feature>(feature_match_1 + length - 1);
    }
    if (length <= 15) {
        return length <= 5 ? feature_match_4_5 : length <= 8 ? feature_match_6_8 : feature_match_9_15;
    }
    return length <= 31 ? feature_match_16_31 : length <= 47 ? feature_match_32_47 : feature_match_48;
}

} // namespace

void NgramSource::clear() {
    tokens_.clear();
    hit_rates_.fill(HitRate());
    for (size_t i = 0; i < n_orders; ++i) {
        latest_[i].clear();
        previous_[i].clear();
    }
}

void NgramSource::push(int32_t token) {
    // The n-grams that end before this token become places to continue from.
    const int32_t here = static_cast<int32_t>(tokens_.size());
    for (size_t i = 0; i < n_orders; ++i) {
        int32_t previous = -1;
        if (tokens_.size() > i) {
            const auto [found, is_new] = latest_[i].try_emplace(key_of(tokens_.data() + tokens_.size(), i + 1), here);
            previous = is_new ? -1 : found->second;
            found->second = here;
        }
        previous_[i].push_back(previous);
    }
    tokens_.push_back(token);
}

void NgramSource::propose(const NodeContext & node, CandidateSet & out) const {
    struct Place {
        int32_t position; // where the token stands that followed
        size_t length;    // how many tokens before it match
    };
    std::array<Place, n_orders * max_places> places;
    size_t n_places = 0;
    const int32_t * end = node.tokens + node.n_tokens;
    for (size_t i = n_orders; i-- > 0;) {
        if (node.n_tokens <= i) {
            continue;
        }
        // Places are compared token by token: keys that collide only waste a look.
        const auto found = latest_[i].find(key_of(end, i + 1));
        int32_t position = found == latest_[i].end() ? -1 : found->second;
        for (int n = 0; position >= 0 && n < max_places; ++n, position = previous_[i][position]) {
            const bool seen = std::any_of(places.begin(), places.begin() + n_places,
                                          [&](const Place & place) { return place.position == position; });
            if (seen) {
                continue;
            }
            const size_t limit = std::min({node.n_tokens, static_cast<size_t>(position), max_match});
            size_t length = 0;
            while (length < limit && tokens_[position - 1 - length] == end[-1 - static_cast<ptrdiff_t>(length)]) {
                ++length;
            }
            if (length > 0) {
                places[n_places++] = {position, length};
            }
        }
    }
    if (n_places == 0) {
        return;
    }
    // Longest match first, the latest first among equals.
    std::sort(places.begin(), places.begin() + n_places, [](const Place & a, const Place & b) {
        return a.length != b.length ? a.length > b.length : a.position > b.position;
    });
    for (size_t i = 0; i < n_places; ++i) {
        const int32_t token = tokens_[places[i].position];
        Features & features = out.at(token);
        if (features[feature_share] != 0.0f) {
            continue; // seen with a longer match
        }
        const auto same = std::count_if(places.begin(), places.begin() + n_places,
                                        [&](const Place & place) { return tokens_[place.position] == token; });
        features[match_feature(places[i].length)] = 1.0f;
        if (i == 0) {
            const HitRate & rate = hit_rates_[match_feature(places[i].length) - feature_match_1];
            features[feature_latest] = 1.0f;
            features[feature_hit_rate] = std::log(rate.hits / rate.misses);
        }
        // Offset by a little, so that a full share is still told from no evidence.
        features[feature_share] = std::log(static_cast<float>(same) / n_places) - 1e-3f;
    }
}

void NgramSource::learn(const CandidateSet & set, int32_t actual) {
    for (const Candidate & item : set.items) {
        if (item.features[feature_latest] == 0.0f) {
            continue;
        }
        for (size_t i = 0; i < hit_rates_.size(); ++i) {
            if (item.features[feature_match_1 + i] != 0.0f) {
                HitRate & rate = hit_rates_[i];
                (item.token == actual ? rate.hits : rate.misses) += 1.0f;
                rate.hits = hit_memory * rate.hits + (1.0f - hit_memory);
                rate.misses = hit_memory * rate.misses + (1.0f - hit_memory);
            }
        }
    }
}

} // namespace mp
