// Rankings of a row of logits, [n_vocab]. Knows numbers alone; which row it was and what the ranking is for is the
// caller's.
#pragma once

#include "drafting/tree.h"

namespace mp {

// The n_top most likely tokens of a row of logits [n_vocab] with their log-probabilities, best first;
// equal logits rank by token id. Values that are not finite are never candidates.
Candidates top_candidates(const float * logits, size_t n_vocab, size_t n_top);

// The same ranking at a fraction of the price: log-probabilities are among the listed tokens only.
Candidates top_listed(const float * logits, size_t n_vocab, size_t n_top);

// The token with the largest logit, the first of them among equals: what llama.cpp's greedy sampler takes.
int32_t most_likely(const float * logits, size_t n_vocab);

// log(sum(exp(logits))), exact.
float log_normalizer(const float * logits, size_t n_vocab);

} // namespace mp
