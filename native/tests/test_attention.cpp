// Attention: its bits against a scalar loop in ggml's order over one query, for every number of queries that are
// computed together, caches of any length, and masks.
#include "check.h"
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using namespace mp::kernels;
using namespace mp::test;

namespace {

constexpr int lanes = 16;

float decoded(uint16_t half) {
    const int exponent = half >> 10 & 31;
    const float mantissa = static_cast<float>(half & 1023);
    const float size = exponent == 0    ? std::ldexp(mantissa, -24)
                       : exponent == 31 ? std::numeric_limits<float>::infinity()
                                        : std::ldexp(1024.0f + mantissa, exponent - 25);
    return half >> 15 != 0 ? -size : size;
}

float from_half(uint16_t half) {
    static const std::vector<float> all = [] {
        std::vector<float> table(65536);
        for (size_t i = 0; i < table.size(); ++i) {
            table[i] = decoded(static_cast<uint16_t>(i));
        }
        return table;
    }();
    return all[half];
}

// To the nearest, of two equally near ones the even: a number of steps, which are as large as the exponent says.
uint16_t to_half(float x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    exponent = x == 0.0f ? -24 : std::max(exponent - 11, -24);
    const int steps = static_cast<int>(std::nearbyint(std::ldexp(std::fabs(x), -exponent)));
    return static_cast<uint16_t>((std::signbit(x) ? 0x8000 : 0) | (((exponent + 24) << 10) + steps));
}

std::vector<uint16_t> random_halves(std::mt19937 & rng, size_t n, float deviation) {
    std::normal_distribution<float> values(0.0f, deviation);
    std::vector<uint16_t> out(n);
    for (uint16_t & x : out) {
        x = to_half(values(rng));
    }
    return out;
}

// Four vectors of sums take turns; halves of what remains are added until one is left.
float dot(const uint16_t * x, const uint16_t * y, int size) {
    float sums[4 * lanes] = {};
    for (int i = 0; i < size; ++i) {
        float & sum = sums[i % (4 * lanes)];
        sum = std::fmaf(from_half(x[i]), from_half(y[i]), sum);
    }
    for (int i = 0; i < lanes; ++i) {
        sums[i] = (sums[i] + sums[2 * lanes + i]) + (sums[lanes + i] + sums[3 * lanes + i]);
    }
    for (int n = lanes / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; ++i) {
            sums[i] = sums[n + i] + sums[i];
        }
    }
    return sums[0];
}

std::vector<float> reference(const HeadCache & cache, const uint16_t * query, const uint16_t * mask, int size,
                             float scale) {
    std::vector<float> sums(static_cast<size_t>(size));
    float largest = -std::numeric_limits<float>::infinity();
    float total = 0.0f;
    for (int64_t i = 0; i < cache.n_keys; ++i) {
        const float bias = mask == nullptr ? 0.0f : from_half(mask[i]);
        if (std::isinf(bias)) {
            continue;
        }
        const float score = dot(cache.keys + static_cast<size_t>(i) * cache.key_stride, query, size) * scale + bias;
        float shrink = 1.0f;
        float weight = 1.0f;
        if (score > largest) {
            shrink = std::exp(largest - score);
            largest = score;
            for (float & sum : sums) {
                sum = from_half(to_half(sum * shrink));
            }
        } else {
            weight = std::exp(score - largest);
        }
        const uint16_t * value = cache.values + static_cast<size_t>(i) * cache.value_stride;
        for (int d = 0; d < size; ++d) {
            const auto at = static_cast<size_t>(d);
            sums[at] = from_half(to_half(std::fmaf(from_half(value[d]), weight, sums[at])));
        }
        total = std::fmaf(total, shrink, weight);
    }
    for (float & sum : sums) {
        sum *= total == 0.0f ? 0.0f : 1.0f / total;
    }
    return sums;
}

void check(Attend attend, std::mt19937 & rng, int size, int n, int64_t n_keys, bool masked) {
    const Scope scope(std::to_string(size) + ", " + std::to_string(n) + " queries, " + std::to_string(n_keys) +
                      (masked ? " keys, masked" : " keys"));
    const auto key_stride = static_cast<size_t>(size) * 2;
    const auto value_stride = static_cast<size_t>(size) + 8;
    const auto count = static_cast<size_t>(n_keys);
    const std::vector<uint16_t> keys = random_halves(rng, count * key_stride, 1.0f);
    std::vector<uint16_t> values = random_halves(rng, count * value_stride, 1.0f);
    const std::vector<uint16_t> queries = random_halves(rng, static_cast<size_t>(n * size), 2.0f);
    std::vector<std::vector<uint16_t>> masks;
    for (int q = 0; q < n; ++q) {
        std::vector<uint16_t> mask(count, 0);
        for (size_t i = 0; i < count; ++i) {
            const uint32_t kind = rng() % 6;
            // The last key of all is hidden from all: what is there may be no number.
            mask[i] = kind == 0 || q == 5 || i + 1 == count ? 0xfc00 : kind == 1 ? to_half(-1.5f) : 0;
        }
        masks.push_back(mask);
    }
    if (masked) {
        values[(count - 1) * value_stride] = 0x7e00;
    }
    std::vector<const uint16_t *> rows;
    std::vector<float *> outs;
    std::vector<float> got(static_cast<size_t>(n * size), 7.0f);
    for (int q = 0; q < n; ++q) {
        rows.push_back(masks[static_cast<size_t>(q)].data());
        outs.push_back(got.data() + q * size);
    }
    const HeadCache cache = {keys.data(), key_stride, values.data(), value_stride, n_keys};
    attend(cache, queries.data(), masked ? rows.data() : nullptr, n, 0.125f, outs.data());
    for (int q = 0; q < n; ++q) {
        const std::vector<float> expected =
            reference(cache, queries.data() + q * size, masked ? rows[static_cast<size_t>(q)] : nullptr, size, 0.125f);
        const bool same =
            std::memcmp(expected.data(), got.data() + q * size, static_cast<size_t>(size) * sizeof(float)) == 0;
        CHECK(same);
    }
}

void bits_are_the_loops(int size) {
    const Attend attend = find_attention(size, Instructions::avx512_vnni, true);
    std::mt19937 rng(static_cast<uint32_t>(size));
    for (int n = 1; n <= most_queries; ++n) {
        for (const int64_t n_keys : {1, 15, 16, 37}) {
            check(attend, rng, size, n, n_keys, false);
            check(attend, rng, size, n, n_keys, true);
        }
    }
}

} // namespace

int main() {
    CHECK(find_attention(64, Instructions::none, true) == nullptr);
    CHECK(find_attention(64, Instructions::avx2_vnni, true) == nullptr);
    CHECK(find_attention(64, Instructions::avx512_vnni, false) == nullptr);
    CHECK(find_attention(80, Instructions::avx512_vnni, true) == nullptr);
    if (processor_has(Instructions::avx512_vnni)) {
        run("heads of 64", [] { bits_are_the_loops(64); });
        run("heads of 128", [] { bits_are_the_loops(128); });
    }
    return finish();
}
