// Ranked candidates from the logits of a mask row. Knows logits; leaves trees to tree.h.
#pragma once

#include "tree.h"

namespace mp {

// The n_top most likely tokens of a row of logits [n_vocab] with their log-probabilities, best first;
// equal logits rank by token id. Values that are not finite are never candidates.
Candidates top_candidates(const float * logits, size_t n_vocab, size_t n_top);

// The same ranking at a fraction of the price: log-probabilities are among the listed tokens only.
Candidates top_listed(const float * logits, size_t n_vocab, size_t n_top);

} // namespace mp
