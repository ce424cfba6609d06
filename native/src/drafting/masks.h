// Mask embeddings: k vectors in the space of token_embd rows that stand for tokens not known yet. Knows
// how they move; their start values are the caller's choice.
#pragma once

#include <cstddef>
#include <vector>

namespace mp {

struct Masks {
    size_t n_embd = 0;
    std::vector<float> values; // [n_masks, n_embd]
    float update = 0.0f;       // lambda of [ESP, eq. 5]

    const float * row(size_t i) const { return values.data() + i * n_embd; }
    // Whether committed tokens move them.
    bool can_move() const { return update != 0.0f && !values.empty(); }

    // [ESP, eq. 5] m_i <- m_i + lambda (e - m_i) for a committed token's embedding row e, [n_embd].
    void commit(const float * embedding) {
        for (size_t i = 0; i < values.size(); i += n_embd) {
            for (size_t j = 0; j < n_embd; ++j) {
                values[i + j] += update * (embedding[j] - values[i + j]);
            }
        }
    }
};

} // namespace mp
