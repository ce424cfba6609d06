#include "survey.h"

#include "block.h"
#include "drafting/adjacency.h"
#include "drafting/logits.h"
#include "error.h"

#include <chrono>
#include <cmath>
#include <limits>

namespace mp {

namespace {

// Empties the KV cache at the end, whatever happens.
class EmptyAfter {
public:
    explicit EmptyAfter(llama_context * ctx) : memory_(llama_api().llama_get_memory(ctx)) {}
    ~EmptyAfter() { llama_api().llama_memory_clear(memory_, false); }
    EmptyAfter(const EmptyAfter &) = delete;
    EmptyAfter & operator=(const EmptyAfter &) = delete;

private:
    llama_memory_i * memory_;
};

void add_row(Block & block, int32_t token, int32_t pos, bool output, std::vector<int32_t> sequences) {
    block.token.push_back(token);
    block.mask.push_back(-1);
    block.pos.push_back(pos);
    block.output.push_back(output ? 1 : 0);
    block.sequences.push_back(std::move(sequences));
}

void decode(llama_context * ctx, Block & block, float * embd) {
    const BatchView view(block, embd);
    const int32_t code = llama_api().llama_decode(ctx, view.get());
    if (code != 0) {
        throw Error(MP_ERROR_DECODE, decode_failure(code));
    }
    llama_api().llama_synchronize(ctx);
}

const float * logits_of(llama_context * ctx, size_t row) {
    const float * logits = llama_api().llama_get_logits_ith(ctx, static_cast<int32_t>(row));
    if (logits == nullptr) {
        throw Error(MP_ERROR_DECODE, "llama.cpp returned no logits for row " + std::to_string(row));
    }
    return logits;
}

void check_rows(llama_context * ctx, size_t rows) {
    if (rows < 1 || rows > llama_api().llama_n_ubatch(ctx)) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(rows) + " rows are not in 1..n_ubatch");
    }
}

} // namespace

PathsCompared compare_paths(llama_context * ctx, Embeddings & embeddings, const std::vector<int32_t> & tokens,
                            float scale) {
    check_rows(ctx, tokens.size());
    const size_t n_vocab = embeddings.n_vocab();
    std::vector<float> rows(tokens.size() * embeddings.n_embd());
    embeddings.rows(tokens.data(), tokens.size(), rows.data());
    for (float & x : rows) {
        x *= scale;
    }
    const auto last_logits = [&](float * embd) {
        const EmptyAfter guard(ctx);
        Block block;
        for (size_t i = 0; i < tokens.size(); ++i) {
            add_row(block, tokens[i], static_cast<int32_t>(i), i + 1 == tokens.size(), {0});
        }
        decode(ctx, block, embd);
        const float * logits = logits_of(ctx, tokens.size() - 1);
        return std::vector<float>(logits, logits + n_vocab);
    };
    const std::vector<float> by_id = last_logits(nullptr);
    const std::vector<float> by_row = last_logits(rows.data());

    PathsCompared result{0.0f, 0.0f};
    double sum = 0.0;
    double sum_of_squares = 0.0;
    for (size_t i = 0; i < n_vocab; ++i) {
        const float difference = std::fabs(by_id[i] - by_row[i]);
        if (!(difference <= result.largest_difference)) {
            result.largest_difference = std::isnan(difference) ? std::numeric_limits<float>::infinity() : difference;
        }
        sum += by_id[i];
        sum_of_squares += static_cast<double>(by_id[i]) * by_id[i];
    }
    const double mean = sum / static_cast<double>(n_vocab);
    const double variance = sum_of_squares / static_cast<double>(n_vocab) - mean * mean;
    result.deviation = static_cast<float>(std::sqrt(std::max(0.0, variance)));
    return result;
}

double time_rows(llama_context * ctx, int32_t n_rows) {
    check_rows(ctx, n_rows > 0 ? static_cast<size_t>(n_rows) : 0);
    const int32_t n_vocab =
        llama_api().llama_vocab_n_tokens(llama_api().llama_model_get_vocab(llama_api().llama_get_model(ctx)));
    Block block;
    for (int32_t i = 0; i < n_rows; ++i) {
        add_row(block, i % n_vocab, i, true, {0});
    }
    const EmptyAfter guard(ctx);
    const auto start = std::chrono::steady_clock::now();
    decode(ctx, block, nullptr);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void rank_followers(llama_context * ctx, int32_t first, const std::vector<int32_t> & tokens, int32_t * followers,
                    float * logps) {
    const size_t n_first = first >= 0 ? 1 : 0;
    check_rows(ctx, tokens.size() + n_first);
    if (tokens.empty() || tokens.size() > llama_api().llama_n_seq_max(ctx)) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(tokens.size()) + " tokens are not in 1..n_seq_max");
    }
    const size_t n_vocab =
        llama_api().llama_vocab_n_tokens(llama_api().llama_model_get_vocab(llama_api().llama_get_model(ctx)));
    Block block;
    if (n_first > 0) {
        std::vector<int32_t> all(tokens.size());
        for (size_t i = 0; i < all.size(); ++i) {
            all[i] = static_cast<int32_t>(i);
        }
        add_row(block, first, 0, false, std::move(all));
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
        add_row(block, tokens[i], static_cast<int32_t>(n_first), true, {static_cast<int32_t>(i)});
    }
    const EmptyAfter guard(ctx);
    decode(ctx, block, nullptr);
    for (size_t i = 0; i < tokens.size(); ++i) {
        const Candidates ranked = top_listed(logits_of(ctx, i + n_first), n_vocab, AdjacencySource::width);
        for (size_t j = 0; j < AdjacencySource::width; ++j) {
            const size_t at = i * AdjacencySource::width + j;
            followers[at] = j < ranked.token.size() ? ranked.token[j] : -1;
            logps[at] = j < ranked.token.size() ? ranked.logp[j] : 0.0f;
        }
    }
}

} // namespace mp
