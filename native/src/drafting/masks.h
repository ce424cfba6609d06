// Mask embeddings: k vectors in the space of token_embd rows that stand for tokens not known yet. Knows
// how they move; their start values are the caller's choice.
#pragma once

#include <cstddef>
#include <vector>

namespace mp {

struct Probe {
    size_t n_masks = 0;
    size_t n_embd = 0;
    std::vector<float> masks; // [n_masks, n_embd]
    float update = 0.0f;      // lambda

    const float * mask(size_t i) const { return masks.data() + i * n_embd; }

    // [ESP, eq. 5] m_i <- m_i + lambda (e - m_i) for a committed token's embedding row e, [n_embd].
    void commit(const float * row) {
        for (size_t i = 0; i < masks.size(); i += n_embd) {
            for (size_t j = 0; j < n_embd; ++j) {
                masks[i + j] += update * (row[j] - masks[i + j]);
            }
        }
    }
};

} // namespace mp
