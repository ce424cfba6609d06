// What is found out before anything is generated, over the mock: whether embedding rows stand for token ids, what
// follows a token alone, and that each call refuses what would not fit and leaves the KV cache empty.
#include "drafting/adjacency.h"
#include "error.h"
#include "session_fixture.h"
#include "survey.h"

#include <cmath>
#include <limits>

using namespace mp;
using namespace mp::test;

namespace {

const LlamaApi base = mock_api();
size_t spoiled = 0; // logits of embedding rows for this token are NaN

void comparing_paths() {
    MockLlama model;
    model.embedding_scale = 4.0f;
    Bench bench(model);
    llama_context * ctx = bench.llama.context();
    PathsCompared found = compare_paths(ctx, bench.embeddings, {3, 1, 4}, 4.0f);
    CHECK_EQ(found.largest_difference, 0.0f);
    // The logits are uniform in 0..8: deviation 8 / sqrt(12), give or take the small sample.
    CHECK(found.deviation > 1.8f && found.deviation < 2.8f);
    CHECK_EQ(bench.llama.history.size(), size_t{2});
    CHECK_EQ(bench.llama.n_used(), size_t{0});
    found = compare_paths(ctx, bench.embeddings, {3, 1, 4}, 1.0f);
    CHECK(found.largest_difference > 1.0f);
    CHECK_EQ(bench.llama.n_used(), size_t{0});

    CHECK_ERROR(MP_ERROR_ARGUMENT, "", compare_paths(ctx, bench.embeddings, {}, 1.0f));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "outside", compare_paths(ctx, bench.embeddings, {40}, 1.0f));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "n_ubatch", compare_paths(ctx, bench.embeddings, Ids(129, 1), 1.0f));
    bench.llama.decode_codes[bench.llama.n_decode_calls + 1] = -3;
    CHECK_ERROR(MP_ERROR_DECODE, "-3", compare_paths(ctx, bench.embeddings, {3, 1}, 4.0f));
    CHECK_EQ(bench.llama.n_used(), size_t{0});
    bench.llama.null_logits = {bench.llama.n_logits_calls};
    CHECK_ERROR(MP_ERROR_DECODE, "no logits", compare_paths(ctx, bench.embeddings, {3, 1}, 4.0f));
    check_kv(bench.llama, bench.session);
}

// One broken value, wherever it stands, must not pass for agreement.
void comparing_paths_with_nan() {
    const MockLlama model;
    LlamaApi api = base;
    api.llama_get_logits_ith = [](llama_context * ctx, int32_t row) -> float * {
        float * logits = base.llama_get_logits_ith(ctx, row);
        if (logits != nullptr && !reinterpret_cast<MockLlama *>(ctx)->rows[row].embd.empty()) {
            logits[spoiled] = std::nanf("");
        }
        return logits;
    };
    bind_llama_api(api);
    for (spoiled = 0; spoiled < static_cast<size_t>(model.n_vocab); ++spoiled) {
        Bench bench(model);
        const PathsCompared found = compare_paths(bench.llama.context(), bench.embeddings, {3, 1, 4}, 1.0f);
        CHECK_EQ(found.largest_difference, std::numeric_limits<float>::infinity());
        CHECK(std::isfinite(found.deviation));
    }
    bind_llama_api(base);
}

void timing_rows() {
    MockLlama llama;
    for (const int32_t n : {1, 2, 60, 128}) {
        CHECK(time_rows(llama.context(), n) >= 0.0);
        CHECK_EQ(llama.rows.size(), static_cast<size_t>(n));
        CHECK_EQ(llama.n_used(), size_t{0});
    }
    for (const int32_t n : {0, -1, 129, std::numeric_limits<int32_t>::min()}) {
        CHECK_ERROR(MP_ERROR_ARGUMENT, "n_ubatch", time_rows(llama.context(), n));
    }
    llama.decode_codes[llama.n_decode_calls] = 2;
    CHECK_ERROR(MP_ERROR_DECODE, "aborted", time_rows(llama.context(), 8));
    CHECK_EQ(llama.n_used(), size_t{0});
    CHECK_EQ(llama.violations, std::vector<std::string>());
}

// Each token sees the first one and itself, however many share the call.
void ranking_followers() {
    constexpr size_t width = AdjacencySource::width;
    for (const int32_t first : {-1, 9}) {
        const Scope scope("after " + std::to_string(first));
        MockLlama llama;
        const Ids tokens{3, 1, 39, 3};
        Ids followers(tokens.size() * width, -2);
        std::vector<float> logps(followers.size(), 1.0f);
        rank_followers(llama.context(), first, tokens, followers.data(), logps.data());
        CHECK_EQ(llama.n_used(), size_t{0});
        for (size_t i = 0; i < tokens.size(); ++i) {
            const Ids prompt = first < 0 ? Ids{tokens[i]} : Ids{first, tokens[i]};
            CHECK_EQ(followers[i * width], plain_decode(llama, prompt, 0, 1)[0]);
            for (size_t j = 1; j < width; ++j) {
                CHECK(followers[i * width + j] >= 0);
                CHECK(logps[i * width + j] <= logps[i * width + j - 1] && logps[i * width] < 0.0f);
            }
        }
        CHECK(std::equal(followers.begin(), followers.begin() + width, followers.end() - width));
    }
    MockLlama small; // fewer tokens than places in a list
    small.n_vocab = 3;
    Ids followers(width, -2);
    std::vector<float> logps(width, 1.0f);
    rank_followers(small.context(), -1, {2}, followers.data(), logps.data());
    CHECK(followers[2] >= 0);
    CHECK_EQ(Ids(followers.begin() + 3, followers.end()), Ids(width - 3, -1));
}

void ranking_refuses() {
    MockLlama llama;
    llama.n_seq_max = 4;
    llama.n_ubatch = 6;
    Ids followers(1000);
    std::vector<float> logps(1000);
    const auto rank = [&](int32_t first, const Ids & tokens) {
        rank_followers(llama.context(), first, tokens, followers.data(), logps.data());
    };
    CHECK_ERROR(MP_ERROR_ARGUMENT, "are not in 1..", rank(1, Ids(5, 2)));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "are not in 1..", rank(1, {}));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "n_ubatch", rank(-1, {}));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "n_ubatch", rank(1, Ids(6, 2)));
    rank(1, Ids(4, 2));
    CHECK_EQ(llama.violations, std::vector<std::string>());
    llama.decode_codes[llama.n_decode_calls] = 2;
    CHECK_ERROR(MP_ERROR_DECODE, "aborted", rank(1, {2, 3}));
    CHECK_EQ(llama.n_used(), size_t{0});
}

} // namespace

int main() {
    bind_llama_api(base);
    run("comparing paths", comparing_paths);
    run("comparing paths with NaN", comparing_paths_with_nan);
    run("timing rows", timing_rows);
    run("ranking followers", ranking_followers);
    run("ranking refuses", ranking_refuses);
    return finish();
}
