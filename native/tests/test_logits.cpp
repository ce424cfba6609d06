// Candidates from logits: which tokens and in which order against std::sort, log-probabilities against an
// exact log-softmax in double, and the edges: ties, few tokens, values that are not finite.
#include "check.h"
#include "drafting/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using namespace mp;
using namespace mp::test;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
using Ids = std::vector<int32_t>;

// Tokens with finite logits, best first, ties by token id.
Ids sorted_tokens(const std::vector<float> & logits) {
    Ids tokens;
    for (size_t i = 0; i < logits.size(); ++i) {
        if (std::isfinite(logits[i])) {
            tokens.push_back(static_cast<int32_t>(i));
        }
    }
    std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    return tokens;
}

double exact_norm(const std::vector<float> & logits) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double total = 0.0;
    for (const float x : logits) {
        total += std::exp(x - max);
    }
    return max + std::log(total);
}

void check_row(const std::vector<float> & logits, size_t n_top) {
    const Candidates found = top_candidates(logits.data(), logits.size(), n_top);
    Ids expected = sorted_tokens(logits);
    expected.resize(std::min(n_top, expected.size()));
    CHECK_EQ(found.token, expected);
    CHECK_EQ(found.logp.size(), found.token.size());
    const double norm = exact_norm(logits);
    for (size_t i = 0; i < found.token.size(); ++i) {
        CHECK(std::fabs(found.logp[i] - (logits[found.token[i]] - norm)) < 1e-3);
        CHECK(found.logp[i] <= 0.0f);
        CHECK(i == 0 || found.logp[i] <= found.logp[i - 1]);
    }
}

// Greedy takes the first of the largest; the normalizer is exact.
void check_greedy(const std::vector<float> & logits) {
    CHECK_EQ(most_likely(logits.data(), logits.size()),
             static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    CHECK(std::fabs(log_normalizer(logits.data(), logits.size()) - exact_norm(logits)) < 1e-5 * logits.size());
}

void greedy() {
    std::mt19937 rng(2);
    for (const size_t n_vocab : {1, 2, 63, 64, 65, 127, 128, 129, 1000, 4099}) {
        for (int i = 0; i < 20; ++i) {
            std::vector<float> logits(n_vocab);
            for (float & x : logits) {
                x = static_cast<float>(below(rng, 30)); // many ties
            }
            check_greedy(logits);
        }
    }
    check_greedy({-inf, -3.0f, -inf, -3.0f});
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> broken(200, 1.0f);
    broken[150] = 2.0f;
    broken[70] = nan;
    CHECK_EQ(most_likely(broken.data(), broken.size()), 150);
    broken[0] = nan; // as llama.cpp: nothing is larger
    CHECK_EQ(most_likely(broken.data(), broken.size()), 0);
}

void against_sort() {
    std::mt19937 rng(1);
    for (const size_t n_vocab : {1, 2, 15, 16, 17, 63, 64, 65, 100, 127, 128, 129, 1000, 4099}) {
        for (const size_t n_top : {1, 2, 5, 30, 64}) {
            for (const float spread : {0.01f, 1.0f, 12.0f, 60.0f}) {
                const Scope scope("n_vocab " + std::to_string(n_vocab) + ", n_top " + std::to_string(n_top) +
                                  ", spread " + std::to_string(spread));
                std::vector<float> logits(n_vocab);
                for (float & x : logits) {
                    x = spread * (static_cast<float>(rng()) * (2.0f / 4294967296.0f) - 1.0f);
                }
                check_row(logits, n_top);
            }
        }
    }
}

// Few distinct values, so that ties cross the border of the best n_top and of the scanned chunks.
void ties() {
    std::mt19937 rng(2);
    for (int round = 0; round < 200; ++round) {
        const Scope scope("round " + std::to_string(round));
        std::vector<float> logits(1 + below(rng, 300));
        for (float & x : logits) {
            x = static_cast<float>(below(rng, 3));
        }
        check_row(logits, 1 + below(rng, 40));
    }
    check_row(std::vector<float>(200, 0.25f), 7);
    // The best comes last, and the best equals the worst kept.
    std::vector<float> late(130, 1.0f);
    late.back() = 2.0f;
    check_row(late, 3);
}

void ascending_and_descending() {
    std::vector<float> logits(500);
    std::iota(logits.begin(), logits.end(), -250.0f);
    check_row(logits, 20);
    std::reverse(logits.begin(), logits.end());
    check_row(logits, 20);
    // Far from zero: only differences matter.
    for (float & x : logits) {
        x = x * 0.01f + 30000.0f;
    }
    check_row(logits, 20);
}

void more_than_there_are() {
    check_row({1.0f, 3.0f, 2.0f}, 10);
    check_row({1.0f}, 1000);
    const float one = 1.0f;
    CHECK(top_candidates(&one, 0, 5).token.empty());
    CHECK(top_candidates(&one, 1, 0).token.empty());
    CHECK(top_candidates(&one, 1, 0).logp.empty());
}

// Tokens that are ruled out have -inf; they are no candidates and weigh nothing.
void masked_tokens() {
    std::mt19937 rng(3);
    for (int round = 0; round < 100; ++round) {
        const Scope scope("round " + std::to_string(round));
        std::vector<float> logits(2 + below(rng, 200));
        for (float & x : logits) {
            x = below(rng, 3) == 0 ? -inf : static_cast<float>(below(rng, 1000)) * 0.01f;
        }
        logits[below(rng, static_cast<int32_t>(logits.size()))] = 4.0f; // one at least is left
        check_row(logits, 1 + below(rng, 20));
    }
    const std::vector<float> none(70, -inf);
    CHECK(top_candidates(none.data(), none.size(), 5).token.empty());
}

// NaN and +inf come from broken backends. They must not be drafted, hide others, or poison the rest.
void broken_values() {
    std::mt19937 rng(4);
    for (const float bad : {std::nanf(""), inf}) {
        for (int round = 0; round < 100; ++round) {
            std::vector<float> logits(1 + below(rng, 200));
            for (float & x : logits) {
                x = below(rng, 4) == 0 ? bad : static_cast<float>(below(rng, 1000)) * 0.01f;
            }
            Ids expected = sorted_tokens(logits);
            const size_t n_top = 1 + below(rng, 20);
            expected.resize(std::min(n_top, expected.size()));
            const Candidates found = top_candidates(logits.data(), logits.size(), n_top);
            CHECK_EQ(found.token, expected);
            for (const float logp : found.logp) {
                CHECK(std::isfinite(logp) && logp <= 0.0f);
            }
        }
    }
}

} // namespace

int main() {
    run("greedy", greedy);
    run("against std::sort", against_sort);
    run("ties", ties);
    run("ascending and descending", ascending_and_descending);
    run("more than there are", more_than_there_are);
    run("masked tokens", masked_tokens);
    run("broken values", broken_values);
    return finish();
}
