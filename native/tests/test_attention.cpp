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
    const int steps = std::isinf(x) ? 0 : static_cast<int>(std::nearbyint(std::ldexp(std::fabs(x), -exponent)));
    const int bits = std::isinf(x) ? 0x7c00 : std::min(((exponent + 24) << 10) + steps, 0x7c00);
    return static_cast<uint16_t>((std::signbit(x) ? 0x8000 : 0) | bits);
}

std::vector<uint16_t> random_halves(std::mt19937 & rng, size_t n, float deviation) {
    std::normal_distribution<float> values(0.0f, deviation);
    std::vector<uint16_t> out(n);
    for (uint16_t & x : out) {
        x = to_half(values(rng));
    }
    return out;
}

// Sums of pairs that are half of all apart, until one is left.
float by_halves(float * sums, int n) {
    for (n /= 2; n > 0; n /= 2) {
        for (int i = 0; i < n; ++i) {
            sums[i] = sums[n + i] + sums[i];
        }
    }
    return sums[0];
}

// Four vectors of sums take turns. What remains is added by halves, by AVX2's way of neighbours in the last two steps.
float dot(const uint16_t * x, const uint16_t * y, int size, int lanes) {
    std::vector<float> sums(static_cast<size_t>(4 * lanes));
    for (int i = 0; i < size; ++i) {
        float & sum = sums[static_cast<size_t>(i % (4 * lanes))];
        sum = std::fmaf(from_half(x[i]), from_half(y[i]), sum);
    }
    for (int i = 0; i < lanes; ++i) {
        float * s = &sums[static_cast<size_t>(i)];
        *s = (s[0] + s[2 * lanes]) + (s[lanes] + s[3 * lanes]);
    }
    if (lanes == 16) {
        return by_halves(sums.data(), lanes);
    }
    for (size_t i = 0; i < 4; ++i) {
        sums[i] = sums[i] + sums[i + 4];
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

struct Q8 {
    uint16_t d;
    int8_t qs[32];
};

float dot(const Q8 * x, const Q8 * y, int size) {
    float sums[8] = {};
    for (int b = 0; b < size / 32; ++b) {
        const float d = from_half(x[b].d) * from_half(y[b].d);
        for (int lane = 0; lane < 8; ++lane) {
            int sum = 0;
            for (int i = 4 * lane; i < 4 * lane + 4; ++i) {
                sum += x[b].qs[i] * y[b].qs[i];
            }
            sums[lane] = std::fmaf(d, static_cast<float>(sum), sums[lane]);
        }
    }
    return by_halves(sums, 8);
}

// A cache of one head and queries, in one of the types.
struct Case {
    CacheType type;
    int lanes; // of ggml's sums
    int size;
    int n;
    int64_t n_keys;
    size_t key_stride = 0;
    size_t value_stride = 0;
    std::vector<char> keys;
    std::vector<char> values;
    std::vector<char> queries;
    std::vector<std::vector<uint16_t>> masks;
    std::vector<float> sinks;
    bool masked = false;
    float cap = 0.0f;

    Case(CacheType type_, int lanes_, int size_, int n_, int64_t n_keys_, std::mt19937 & rng)
        : type(type_), lanes(lanes_), size(size_), n(n_), n_keys(n_keys_) {
        key_stride = 2 * row_bytes(); // as where heads stand side by side
        value_stride = 3 * row_bytes();
        keys = random(rng, static_cast<size_t>(n_keys) * 2, 1.0f);
        values = random(rng, static_cast<size_t>(n_keys) * 3, 1.0f);
        queries = random(rng, static_cast<size_t>(n), 2.0f);
    }

    size_t row_bytes() const {
        return static_cast<size_t>(type == CacheType::f16 ? size * 2 : size / 32 * static_cast<int>(sizeof(Q8)));
    }

    std::vector<char> random(std::mt19937 & rng, size_t rows, float deviation) const {
        std::vector<char> out(rows * row_bytes());
        if (type == CacheType::f16) {
            const std::vector<uint16_t> halves = random_halves(rng, out.size() / 2, deviation);
            std::memcpy(out.data(), halves.data(), out.size());
            return out;
        }
        for (size_t at = 0; at < out.size(); at += sizeof(Q8)) {
            Q8 block;
            block.d = to_half(deviation * static_cast<float>(rng() % 1000) / 4e4f);
            for (int8_t & q : block.qs) {
                q = static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
            }
            std::memcpy(out.data() + at, &block, sizeof block);
        }
        return out;
    }

    // Hides a third of the keys, all of them from the sixth query, and the last from all: it may be no number.
    void hide(std::mt19937 & rng) {
        masked = true;
        for (int q = 0; q < n; ++q) {
            std::vector<uint16_t> mask(static_cast<size_t>(n_keys), 0);
            for (size_t i = 0; i < mask.size(); ++i) {
                const uint32_t kind = rng() % 6;
                mask[i] = kind == 0 || q == 5 || i + 1 == mask.size() ? 0xfc00 : kind == 1 ? to_half(-1.5f) : 0;
            }
            masks.push_back(mask);
        }
        const uint16_t no_number = 0x7e00; // a half float, or the scale of a block
        std::memcpy(values.data() + static_cast<size_t>(n_keys - 1) * value_stride, &no_number, 2);
    }

    float score(int q, size_t key) const {
        const char * x = keys.data() + key * key_stride;
        const char * y = queries.data() + static_cast<size_t>(q) * row_bytes();
        return type == CacheType::f16
                   ? dot(reinterpret_cast<const uint16_t *>(x), reinterpret_cast<const uint16_t *>(y), size, lanes)
                   : dot(reinterpret_cast<const Q8 *>(x), reinterpret_cast<const Q8 *>(y), size);
    }

    float value(size_t key, int at) const {
        const char * row = values.data() + key * value_stride;
        if (type == CacheType::f16) {
            return from_half(reinterpret_cast<const uint16_t *>(row)[at]);
        }
        const Q8 & block = reinterpret_cast<const Q8 *>(row)[at / 32];
        return static_cast<float>(block.qs[at % 32]) * from_half(block.d);
    }

    float kept(float sum) const { return type == CacheType::f16 ? from_half(to_half(sum)) : sum; }

    std::vector<float> reference(int q) const {
        std::vector<float> sums(static_cast<size_t>(size));
        float largest = -std::numeric_limits<float>::infinity();
        float total = 0.0f;
        // What the sums and the total become at a score, before what it weighs is added.
        const auto meet = [&](float s, const auto & keep) {
            const float weight = s > largest ? 1.0f : std::exp(s - largest);
            if (s > largest) {
                const float shrink = std::exp(largest - s);
                largest = s;
                for (float & sum : sums) {
                    sum = keep(sum * shrink);
                }
                total = std::fmaf(total, shrink, weight);
            } else {
                total += weight;
            }
            return weight;
        };
        for (size_t i = 0; i < static_cast<size_t>(n_keys); ++i) {
            const float bias = masked ? from_half(masks[static_cast<size_t>(q)][i]) : 0.0f;
            if (std::isinf(bias)) {
                continue;
            }
            float s = score(q, i) * (cap == 0.0f ? 0.125f : 0.125f / cap);
            s = (cap == 0.0f ? s : cap * std::tanh(s)) + bias;
            const float weight = meet(s, [this](float sum) { return kept(sum); });
            for (int d = 0; d < size; ++d) {
                float & sum = sums[static_cast<size_t>(d)];
                sum = kept(std::fmaf(value(i, d), weight, sum));
            }
        }
        if (!sinks.empty()) {
            meet(sinks[static_cast<size_t>(q)], [](float sum) { return sum; });
        }
        for (float & sum : sums) {
            sum *= total == 0.0f ? 0.0f : 1.0f / total;
        }
        return sums;
    }

    void check(Attend attend) const {
        const Scope scope(std::string(type == CacheType::f16 ? "f16, " : "q8_0, ") + std::to_string(size) + ", " +
                          std::to_string(n) + " queries, " + std::to_string(n_keys) +
                          (masked ? " keys, masked" : " keys") + (cap == 0.0f ? "" : ", capped") +
                          (sinks.empty() ? "" : ", sinks"));
        std::vector<const uint16_t *> rows;
        std::vector<float *> outs;
        std::vector<float> got(static_cast<size_t>(n * size), 7.0f);
        for (int q = 0; q < n; ++q) {
            rows.push_back(masked ? masks[static_cast<size_t>(q)].data() : nullptr);
            outs.push_back(got.data() + q * size);
        }
        attend({{keys.data(), key_stride, values.data(), value_stride, n_keys},
                queries.data(),
                n,
                masked ? rows.data() : nullptr,
                cap == 0.0f ? 0.125f : 0.125f / cap,
                cap,
                sinks.empty() ? nullptr : sinks.data(),
                outs.data()});
        for (int q = 0; q < n; ++q) {
            const std::vector<float> expected = reference(q);
            const bool same =
                std::memcmp(expected.data(), got.data() + q * size, static_cast<size_t>(size) * sizeof(float)) == 0;
            CHECK(same);
        }
    }
};

void bits_are_the_loops(Instructions instructions, bool wide_floats, CacheType type) {
    const int lanes = wide_floats ? 16 : 8;
    for (const int size : {32, 64, 96, 128, 256, 512}) {
        const Attend attend = find_attention(size, type, instructions, wide_floats);
        CHECK_EQ(attend != nullptr, size % (4 * lanes) == 0);
        if (attend == nullptr) {
            continue;
        }
        std::mt19937 rng(static_cast<uint32_t>(size));
        for (int n = 1; n <= (size <= 128 ? most_queries : 3); ++n) {
            for (const int64_t n_keys : {1, 15, 16, 37}) {
                Case one(type, lanes, size, n, n_keys, rng);
                one.check(attend);
                one.hide(rng);
                one.check(attend);
                one.cap = 3.0f;
                for (int q = 0; q < n; ++q) {
                    one.sinks.push_back(q % 2 == 0 ? 0.5f : 9.0f);
                }
                one.check(attend);
            }
        }
    }
}

// Sums beyond the largest half float are infinite from then on.
void sums_overflow(Instructions instructions, bool wide_floats) {
    std::mt19937 rng(1);
    Case one(CacheType::f16, wide_floats ? 16 : 8, 64, 2, 40, rng);
    const auto huge = to_half(6e4f);
    for (const size_t key : {size_t{3}, size_t{4}, size_t{20}}) {
        std::memcpy(one.values.data() + key * one.value_stride, &huge, 2);
        std::memset(one.keys.data() + key * one.key_stride, 0, one.row_bytes());
    }
    std::fill(one.queries.begin(), one.queries.end(), '\0');
    one.check(find_attention(64, CacheType::f16, instructions, wide_floats));
}

} // namespace

int main() {
    CHECK(find_attention(64, CacheType::f16, Instructions::none, true) == nullptr);
    CHECK(find_attention(64, CacheType::f16, Instructions::avx2, true) == nullptr);
    CHECK(find_attention(64, CacheType::f16, Instructions::avx2_vnni, true) == nullptr);
    for (const Instructions one : {Instructions::avx2, Instructions::avx2_vnni, Instructions::avx512_vnni}) {
        for (const bool wide_floats : {false, true}) {
            if (!processor_has(one) || (wide_floats && one != Instructions::avx512_vnni)) {
                continue;
            }
            const std::string name = std::string(name_of(one)) + (wide_floats ? ", wide" : "");
            run((name + ", half floats").c_str(), [&] { bits_are_the_loops(one, wide_floats, CacheType::f16); });
            run((name + ", Q8_0").c_str(), [&] { bits_are_the_loops(one, wide_floats, CacheType::q8_0); });
            run((name + ", overflow").c_str(), [&] { sums_overflow(one, wide_floats); });
        }
    }
    return finish();
}
