// The sources of drafts and the mixer: n-grams against a search of the whole text, adjacency lists against what
// was put in, probabilities that add up, and an online regression that finds out which evidence holds and says
// probabilities that come true.
#include "check.h"
#include "drafting/adjacency.h"
#include "drafting/history.h"
#include "drafting/mixer.h"
#include "drafting/ngram.h"
#include "error.h"

#include <algorithm>
#include <cmath>
#include <map>

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

NodeContext view(const Ids & tokens) { return {tokens.data(), tokens.size()}; }

const Candidate * find(const CandidateSet & set, int32_t token) {
    const auto found =
        std::find_if(set.items.begin(), set.items.end(), [&](const Candidate & item) { return item.token == token; });
    return found == set.items.end() ? nullptr : &*found;
}

size_t bucket(size_t length) { return length <= 3 ? length - 1 : length <= 5 ? 3 : length <= 8 ? 4 : 5; }

// Longest match of the context's end at every earlier place, straight from the definition.
std::map<int32_t, size_t> longest_matches(const Ids & text, const Ids & context) {
    std::map<int32_t, size_t> best;
    for (size_t place = 1; place < text.size(); ++place) {
        size_t length = 0;
        while (length < std::min({place, context.size(), NgramSource::max_match}) &&
               text[place - 1 - length] == context[context.size() - 1 - length]) {
            ++length;
        }
        if (length > 0) {
            best[text[place]] = std::max(best[text[place]], length);
        }
    }
    return best;
}

void ngrams_against_search() {
    std::mt19937 rng(3);
    for (int round = 0; round < 200; ++round) {
        const Scope scope("round " + std::to_string(round));
        const int32_t n_vocab = 2 + below(rng, 6);
        NgramSource source;
        Ids text;
        // Short enough that every place is among those looked at.
        for (int i = 0, n = 1 + below(rng, 8); i < n; ++i) {
            text.push_back(below(rng, n_vocab));
            source.push(text.back());
        }
        Ids context = text;
        for (int i = below(rng, 3); i > 0; --i) {
            context.push_back(below(rng, n_vocab)); // drafted tokens go on from the text
        }
        CandidateSet set;
        source.propose(view(context), set);
        const auto expected = longest_matches(text, context);
        CHECK_EQ(set.items.size(), expected.size());
        for (const auto & [token, length] : expected) {
            const Candidate * item = find(set, token);
            if (CHECK(item != nullptr)) {
                for (size_t i = 0; i < 6; ++i) {
                    CHECK_EQ(item->features[feature_match_1 + i], i == bucket(length) ? 1.0f : 0.0f);
                }
            }
        }
        const auto latest = std::count_if(set.items.begin(), set.items.end(),
                                          [](const Candidate & item) { return item.features[feature_latest] > 0; });
        CHECK_EQ(latest, static_cast<ptrdiff_t>(set.items.empty() ? 0 : 1));
    }
}

void latest_of_the_longest_wins() {
    NgramSource source;
    for (const int32_t token : {1, 2, 7, 1, 2, 8, 5, 2, 9, 1, 2}) {
        source.push(token);
    }
    CandidateSet set;
    source.propose(view(source.tokens()), set);
    CHECK_EQ(find(set, 8)->features[feature_latest], 1.0f);
    CHECK_EQ(find(set, 7)->features[feature_latest], 0.0f);
    CHECK_EQ(find(set, 9)->features[feature_match_1], 1.0f);
    CHECK_EQ(find(set, 8)->features[feature_match_2], 1.0f);
}

void hit_rates_follow_what_happens() {
    const auto log_odds = [](bool hits) {
        NgramSource source;
        float last = 0.0f;
        for (int i = 0; i < 30; ++i) {
            CandidateSet set;
            source.push(1);
            source.push(2);
            source.propose(view(source.tokens()), set);
            const auto best = std::find_if(set.items.begin(), set.items.end(),
                                           [](const Candidate & item) { return item.features[feature_latest] > 0; });
            if (best != set.items.end()) {
                last = best->features[feature_hit_rate];
                source.learn(set, hits ? best->token : -2);
            }
            source.push(hits ? 3 : 100 + i);
        }
        return last;
    };
    CHECK(log_odds(true) > 1.0f);
    CHECK(log_odds(false) < -1.0f);
}

void adjacency_lists() {
    AdjacencySource source(10);
    CandidateSet none;
    source.propose(view({3}), none);
    CHECK_EQ(none.items.size(), size_t{0});

    source.refresh(3, Candidates{{5, 6}, {-0.5f, -2.0f}});
    CandidateSet set;
    set.at(4); // known from elsewhere
    source.propose(view({9, 3}), set);
    CHECK_EQ(find(set, 5)->features[feature_recent], 7.5f);
    CHECK_EQ(find(set, 6)->features[feature_recent_listed], 1.0f);
    CHECK_EQ(find(set, 4)->features[feature_recent_unlisted], 1.0f);
    CHECK_EQ(find(set, 5)->features[feature_recent_unlisted], 0.0f);

    source.refresh(3, Candidates{{7}, {-0.1f}});
    CandidateSet refreshed;
    source.propose(view({3}), refreshed);
    CHECK_EQ(refreshed.items.size(), size_t{1});
    CHECK_EQ(refreshed.items[0].token, 7);

    Ids tokens(10 * AdjacencySource::width, -1);
    std::vector<float> logps(tokens.size(), 0.0f);
    tokens[2 * AdjacencySource::width] = 8;
    source.set_table(tokens.data(), logps.data());
    CandidateSet alone;
    source.propose(view({2}), alone);
    CHECK_EQ(alone.items.size(), size_t{1});
    CHECK_EQ(find(alone, 8)->features[feature_table], 8.0f);
    tokens[5] = 10;
    bool refused = false;
    try {
        source.set_table(tokens.data(), logps.data());
    } catch (const Error & error) {
        refused = error.status == MP_ERROR_ARGUMENT;
    }
    CHECK(refused);
}

float p_of(const CandidateSet & set, int32_t token) {
    const Candidate * item = find(set, token);
    return item == nullptr ? 0.0f : std::exp(item->features[feature_history] + list_floor);
}

CandidateSet ask(const HistorySource & source, const Ids & context) {
    CandidateSet set;
    source.propose(view(context), set);
    return set;
}

void history_foretells_what_was_written() {
    HistorySource source;
    CHECK_EQ(ask(source, {3}).items.size(), size_t{0});

    // After 1 2 came 3 twice and 4 once; after 9 2 came 5.
    source.learn({1, 2, 3, 1, 2, 3, 1, 2, 4, 9, 2, 5}, 0);
    const CandidateSet known = ask(source, {1, 2});
    CHECK(p_of(known, 3) > p_of(known, 4));
    CHECK(p_of(known, 4) > p_of(known, 5)); // which only the shorter context has seen
    CHECK(p_of(known, 5) > 0.0f);
    CHECK_EQ(p_of(known, 6), 0.0f);
    CHECK(p_of(ask(source, {9, 2}), 5) > p_of(ask(source, {9, 2}), 3));
    CHECK(p_of(ask(source, {7, 2}), 3) > p_of(ask(source, {7, 2}), 5)); // 7 2 is new: as after 2
    float total = 0.0f;
    for (const Candidate & item : known.items) {
        CHECK_EQ(item.features[feature_history_listed], 1.0f);
        total += p_of(known, item.token);
    }
    CHECK(total > 0.5f && total <= 1.0f);

    source.forget();
    CHECK_EQ(ask(source, {1, 2}).items.size(), size_t{0});
}

void history_begins_where_the_model_does() {
    HistorySource source;
    source.learn({1, 2, 3, 4}, 2);
    CHECK_EQ(ask(source, {1}).items.size(), size_t{0}); // 2 was the user's
    CHECK(p_of(ask(source, {1, 2}), 3) > 0.3f);
    CHECK(p_of(ask(source, {3}), 4) > 0.3f);
    source.learn({}, 0);
    source.learn({5}, 0);
    source.learn({6, 7}, 2);
    CHECK_EQ(ask(source, {6}).items.size(), size_t{0});
}

// More contexts than there are places: what is often seen stays, what is new is learned, and nobody is told of the
// followers of another context.
void history_is_bounded() {
    HistorySource source;
    for (int i = 0; i < 100; ++i) {
        source.learn({1, 2}, 0);
    }
    constexpr int32_t n_pairs = 400000;
    for (int32_t token = 100; token < 100 + n_pairs; ++token) {
        source.learn({token, token + 1}, 0);
    }
    CHECK(p_of(ask(source, {1}), 2) > 0.5f);
    CHECK_EQ(ask(source, {1}).items.size(), size_t{1});
    int32_t n_known = 0;
    for (int32_t token = 99 + n_pairs; token > 99; --token) {
        const CandidateSet set = ask(source, {token});
        CHECK(set.items.empty() || (set.items.size() == 1 && set.items[0].token == token + 1));
        n_known += token >= 99 + n_pairs - 1000 && !set.items.empty() ? 1 : 0;
    }
    CHECK(n_known > 900);
}

void history_counts_for_ever() {
    HistorySource source;
    for (int i = 0; i < 65537; ++i) {
        source.learn({1, 2}, 0);
    }
    CHECK(p_of(ask(source, {1}), 2) > 0.9f);
    // A follower that has become the common one takes the place of those that no longer come.
    for (int32_t follower = 10; follower < 18; ++follower) {
        for (int i = 0; i < 40; ++i) {
            source.learn({50, follower}, 0);
        }
    }
    CHECK(p_of(ask(source, {50}), 17) > 0.05f);
}

// Two sources, one of which is right three times out of four and one which is noise.
CandidateSet evidence(std::mt19937 & rng, int32_t & actual) {
    CandidateSet set;
    const int32_t good = below(rng, 100);
    const int32_t noise = 100 + below(rng, 100);
    set.at(good)[feature_match_3] = 1.0f;
    set.at(noise)[feature_recent_listed] = 1.0f;
    actual = below(rng, 4) != 0 ? good : 500;
    return set;
}

void mixer_adds_up_and_comes_true() {
    std::mt19937 rng(7);
    Mixer mixer;
    double said = 0.0;
    double came = 0.0;
    double noise = 0.0;
    for (int i = 0; i < 6000; ++i) {
        int32_t actual = 0;
        CandidateSet set = evidence(rng, actual);
        mixer.mix(set);
        double total = set.p_none;
        for (const Candidate & item : set.items) {
            CHECK(item.p >= 0.0f && item.p <= 1.0f);
            total += item.p;
        }
        CHECK(std::fabs(total - 1.0) < 1e-4);
        if (i >= 4000) {
            said += set.items[0].p;
            came += set.items[0].token == actual ? 1.0 : 0.0;
            noise += set.items[1].p;
        }
        mixer.learn(set, actual);
    }
    CHECK(std::fabs(said - came) < 0.04 * 2000);
    CHECK(noise < 0.05 * 2000);
}

void mixer_survives_extremes() {
    Mixer mixer;
    for (int i = 0; i < 1000; ++i) {
        CandidateSet set;
        set.at(1).fill(30.0f);
        set.at(2).fill(-30.0f);
        mixer.mix(set);
        CHECK(std::isfinite(set.items[0].p) && std::isfinite(set.items[1].p) && std::isfinite(set.p_none));
        mixer.learn(set, i % 3);
    }
}

} // namespace

int main() {
    run("n-grams against a search", ngrams_against_search);
    run("the latest of the longest matches", latest_of_the_longest_wins);
    run("hit rates", hit_rates_follow_what_happens);
    run("adjacency lists", adjacency_lists);
    run("history foretells what was written", history_foretells_what_was_written);
    run("history begins where the model does", history_begins_where_the_model_does);
    run("history is bounded", history_is_bounded);
    run("history counts for ever", history_counts_for_ever);
    run("the mixer's probabilities", mixer_adds_up_and_comes_true);
    run("the mixer at extremes", mixer_survives_extremes);
    return finish();
}
