// What is found out about a model and a machine before anything is generated: do embedding rows stand for token
// ids, what do rows cost, what follows a token. Each runs llama_decode in an empty KV cache and leaves it empty.
#pragma once

#include "context.h"
#include "embeddings.h"

#include <cstdint>
#include <vector>

namespace mp {

struct PathsCompared {
    float largest_difference; // between logits of ids and of embedding rows; NaN counts as infinite
    float deviation;          // standard deviation of the logits of ids
};

// Decodes the tokens by id and by embedding row times scale.
PathsCompared compare_paths(const Context & context, Embeddings & embeddings, const std::vector<int32_t> & tokens,
                            float scale);

// Milliseconds of one llama_decode of n_rows tokens.
double time_rows(const Context & context, int32_t n_rows);

// What follows each token when it stands alone after first (-1: after nothing): [n, AdjacencySource::width]
// each, best first, in one llama_decode.
void rank_followers(const Context & context, int32_t first, const std::vector<int32_t> & tokens, int32_t * followers,
                    float * logps);

} // namespace mp
