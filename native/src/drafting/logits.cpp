#include "drafting/logits.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

// Wheels are built for the oldest processors of a platform; where the loader can choose, the loops over
// whole logits rows exist a second time for AVX2 (three times as fast there). The thread sanitizer is not up yet when
// the loader chooses.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) &&                           \
    !defined(__SANITIZE_THREAD__)
#define MP_VECTOR_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define MP_VECTOR_CLONES
#endif

namespace mp {

namespace {

constexpr size_t lanes = 64; // independent accumulators: elementwise loops vectorize without -ffast-math

// Whether any of n values exceeds the threshold; an integer reduction, which vectorizes.
MP_VECTOR_CLONES bool any_above(const float * x, size_t n, float threshold) {
    int any = 0;
    for (size_t i = 0; i < n; ++i) {
        any |= x[i] > threshold ? 1 : 0;
    }
    return any != 0;
}

// exp(x) for x in -87..0 (clamped) to about 1e-4 relative, branch-free: 2^n by the exponent bits, 2^f by a
// polynomial.
inline float fast_exp(float x) {
    x = x > -87.0f ? x : -87.0f;
    const float y = (x < 0.0f ? x : 0.0f) * 1.44269504f;
    const float shifted = y + 12582912.0f; // 1.5 * 2^23: rounds y to the nearest integer
    const float f = y - (shifted - 12582912.0f);
    const float p = 1.0f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * 0.00961813f)));
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const int32_t exponent = (bits - 0x4B400000 + 127) * (1 << 23);
    float scale;
    std::memcpy(&scale, &exponent, sizeof scale);
    return p * scale;
}

MP_VECTOR_CLONES float log_sum_exp(const float * x, size_t n, float max) {
    std::array<float, lanes> sum{};
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (size_t j = 0; j < lanes; ++j) {
            sum[j] += fast_exp(x[i + j] - max);
        }
    }
    double total = 0.0;
    for (; i < n; ++i) {
        total += fast_exp(x[i] - max);
    }
    for (const float s : sum) {
        total += s;
    }
    return max + static_cast<float>(std::log(total));
}

MP_VECTOR_CLONES float largest(const float * x, size_t n) {
    std::array<float, lanes> best;
    best.fill(x[0]);
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (size_t j = 0; j < lanes; ++j) {
            best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
        }
    }
    float max = x[0];
    for (; i < n; ++i) {
        max = x[i] > max ? x[i] : max;
    }
    for (const float b : best) {
        max = b > max ? b : max;
    }
    return max;
}

struct Entry {
    float logit;
    int32_t token;
};

bool is_better(const Entry & a, const Entry & b) { return a.logit != b.logit ? a.logit > b.logit : a.token < b.token; }

// The best n_top finite logits, best first.
std::vector<Entry> rank_top(const float * logits, size_t n_vocab, size_t n_top) {
    std::vector<Entry> heap; // the worst of the best on top
    heap.reserve(n_top + 1);
    for (size_t start = 0; start < n_vocab && n_top > 0; start += lanes) {
        const size_t end = std::min(start + lanes, n_vocab);
        if (heap.size() == n_top && !any_above(logits + start, end - start, heap.front().logit)) {
            continue;
        }
        for (size_t i = start; i < end; ++i) {
            const Entry entry{logits[i], static_cast<int32_t>(i)};
            if (!std::isfinite(entry.logit) || (heap.size() == n_top && !is_better(entry, heap.front()))) {
                continue;
            }
            heap.push_back(entry);
            std::push_heap(heap.begin(), heap.end(), is_better);
            if (heap.size() > n_top) {
                std::pop_heap(heap.begin(), heap.end(), is_better);
                heap.pop_back();
            }
        }
    }
    std::sort_heap(heap.begin(), heap.end(), is_better);
    return heap;
}

Candidates with_norm(const std::vector<Entry> & ranked, float norm) {
    Candidates result;
    for (const Entry & entry : ranked) {
        result.token.push_back(entry.token);
        result.logp.push_back(std::min(0.0f, entry.logit - norm));
    }
    return result;
}

} // namespace

Candidates top_candidates(const float * logits, size_t n_vocab, size_t n_top) {
    const std::vector<Entry> ranked = rank_top(logits, n_vocab, n_top);
    return ranked.empty() ? Candidates() : with_norm(ranked, log_sum_exp(logits, n_vocab, ranked.front().logit));
}

int32_t most_likely(const float * logits, size_t n_vocab) {
    const float * found = std::find(logits, logits + n_vocab, largest(logits, n_vocab));
    return found == logits + n_vocab ? 0 : static_cast<int32_t>(found - logits); // 0: it begins with NaN
}

float log_normalizer(const float * logits, size_t n_vocab) {
    const float max = *std::max_element(logits, logits + n_vocab);
    double sum = 0.0;
    for (size_t i = 0; i < n_vocab; ++i) {
        sum += std::exp(static_cast<double>(logits[i]) - max);
    }
    return max + static_cast<float>(std::log(sum));
}

Candidates top_listed(const float * logits, size_t n_vocab, size_t n_top) {
    const std::vector<Entry> ranked = rank_top(logits, n_vocab, n_top);
    float total = 0.0f;
    for (const Entry & entry : ranked) {
        total += fast_exp(entry.logit - ranked.front().logit);
    }
    return ranked.empty() ? Candidates() : with_norm(ranked, ranked.front().logit + std::log(total));
}

} // namespace mp
