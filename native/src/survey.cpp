#include "survey.h"

#include "drafting/adjacency.h"
#include "drafting/logits.h"
#include "error.h"

#include <cmath>
#include <limits>

namespace mp {

namespace {

// Empties the KV cache at the end, whatever happens.
class EmptyAfter {
public:
    explicit EmptyAfter(const Context & context) : context_(context) {}
    ~EmptyAfter() { context_.clear_cells(); }
    EmptyAfter(const EmptyAfter &) = delete;
    EmptyAfter & operator=(const EmptyAfter &) = delete;

private:
    const Context & context_;
};

void check_rows(const Context & context, size_t rows) {
    if (rows < 1 || rows > context.n_ubatch()) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(rows) + " rows are not in 1..n_ubatch");
    }
}

} // namespace

PathsCompared compare_paths(const Context & context, Embeddings & embeddings, const std::vector<int32_t> & tokens,
                            float scale) {
    check_rows(context, tokens.size());
    const size_t n_vocab = embeddings.n_vocab();
    std::vector<float> rows(tokens.size() * context.n_embd_inp(), 0.0f);
    for (size_t i = 0; i < tokens.size(); ++i) {
        embeddings.rows(&tokens[i], 1, rows.data() + i * context.n_embd_inp());
    }
    for (float & x : rows) {
        x *= scale;
    }
    const auto last_logits = [&](float * embd) {
        const EmptyAfter guard(context);
        Block block = layout_prompt(tokens, 0, 1, true);
        context.decode(block, embd);
        const float * logits = context.logits_of(static_cast<int32_t>(tokens.size()) - 1);
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

double time_rows(const Context & context, int32_t n_rows) {
    check_rows(context, n_rows > 0 ? static_cast<size_t>(n_rows) : 0);
    Block block;
    for (int32_t i = 0; i < n_rows; ++i) {
        block.add_row(i % context.n_vocab(), i, true, {0});
    }
    const EmptyAfter guard(context);
    return context.decode(block, nullptr);
}

void rank_followers(const Context & context, int32_t first, const std::vector<int32_t> & tokens, int32_t * followers,
                    float * logps) {
    const size_t n_first = first >= 0 ? 1 : 0;
    check_rows(context, tokens.size() + n_first);
    // Rows that share a sequence with others of several are refused by memories with a recurrent state.
    const size_t most = context.rewind() == Rewind::cells ? context.n_seq_max() : 1;
    if (tokens.empty() || tokens.size() > most) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(tokens.size()) + " tokens are not in 1.." + std::to_string(most));
    }
    Block block;
    if (n_first > 0) {
        block.add_row(first, 0, false, first_sequences(static_cast<int32_t>(tokens.size())));
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
        block.add_row(tokens[i], static_cast<int32_t>(n_first), true, {static_cast<int32_t>(i)});
    }
    const EmptyAfter guard(context);
    context.decode(block, nullptr);
    for (size_t i = 0; i < tokens.size(); ++i) {
        const float * logits = context.logits_of(static_cast<int32_t>(i + n_first));
        const Candidates ranked = top_listed(logits, context.n_vocab(), AdjacencySource::width);
        for (size_t j = 0; j < AdjacencySource::width; ++j) {
            const size_t at = i * AdjacencySource::width + j;
            followers[at] = j < ranked.token.size() ? ranked.token[j] : -1;
            logps[at] = j < ranked.token.size() ? ranked.logp[j] : 0.0f;
        }
    }
}

} // namespace mp
