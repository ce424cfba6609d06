// The mock's model: logits that are a hash of exactly what a row sees, and the guesses of masks (mock_llama.h).
#include "mock_parts.h"

#include <algorithm>
#include <cstring>

namespace mp::test {

namespace mock {

namespace {

constexpr uint64_t mask_bit = uint64_t{1} << 63;

std::vector<float> logits_after(uint64_t hash, int32_t n_vocab) {
    std::vector<float> logits(n_vocab);
    for (int32_t token = 0; token < n_vocab; ++token) {
        logits[token] = 8.0f * unit(mix(hash, static_cast<uint64_t>(token)));
    }
    return logits;
}

// What decides the logits after these tokens: all they have left behind, or the last few of them.
uint64_t logits_key(const MockLlama & m, const std::vector<int32_t> & tokens, uint64_t hash) {
    if (m.n_remembered == 0) {
        return hash;
    }
    uint64_t key = 7;
    for (size_t i = tokens.size() - std::min(m.n_remembered, tokens.size()); i < tokens.size(); ++i) {
        key = mix(key, static_cast<uint64_t>(tokens[i]));
    }
    return key;
}

uint64_t state_of(uint64_t before, int32_t pos, uint64_t input) {
    return mix(mix(before, static_cast<uint64_t>(pos)), input);
}

// The masks' answer, see the head of mock_llama.h.
std::vector<float> mask_logits(MockLlama & m, const MockRow & row, uint64_t hash) {
    MockChain chain;
    std::vector<int32_t> tokens;
    size_t n_masks = 0;
    bool odd = false;
    for (const size_t i : row.visible) {
        const MockCell & cell = m.cells[i];
        odd = odd || cell.pos != chain.n + static_cast<int32_t>(n_masks) || (cell.token >= 0 && n_masks > 0);
        if (cell.token >= 0) {
            chain.push(cell.token);
            tokens.push_back(cell.token);
        } else {
            ++n_masks;
        }
    }
    if (odd || n_masks == 0) {
        ++m.n_odd_masks;
        return logits_after(hash, m.n_vocab);
    }
    // The model's choices from here on; the last is what the slot after this mask will hold.
    int32_t truth = argmax(logits_after(logits_key(m, tokens, chain.hash), m.n_vocab));
    for (size_t i = 0; i < n_masks; ++i) {
        chain.push(truth);
        tokens.push_back(truth);
        truth = argmax(logits_after(logits_key(m, tokens, chain.hash), m.n_vocab));
    }
    std::vector<int32_t> ranked;
    for (int32_t token = 0; token < m.n_vocab; ++token) {
        if (token != truth) {
            ranked.push_back(token);
        }
    }
    std::sort(ranked.begin(), ranked.end(), [&](int32_t a, int32_t b) { return mix(hash, a) < mix(hash, b); });
    const int32_t rank = m.rank_of_truth(chain.n, n_masks - 1);
    ranked.insert(rank < 0 ? ranked.end() : ranked.begin() + std::min(rank, m.n_vocab - 1), truth);
    std::vector<float> logits(m.n_vocab);
    for (int32_t i = 0; i < m.n_vocab; ++i) {
        logits[ranked[i]] = m.logit_of_rank(i);
    }
    return logits;
}

} // namespace

uint64_t mix(uint64_t h, uint64_t v) {
    h += 0x9E3779B97F4A7C15u + v * 0xD6E8FEB86659FD93u;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

float unit(uint64_t h) { return static_cast<float>(h >> 40) * (1.0f / 16777216.0f); }

int32_t argmax(const std::vector<float> & logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

uint64_t append(uint64_t before, int32_t pos, uint64_t state) {
    return mix(mix(before, ~static_cast<uint64_t>(pos)), state);
}

uint64_t input_of(const MockRow & row) {
    if (row.token >= 0) {
        return static_cast<uint64_t>(row.token);
    }
    uint64_t hash = 0;
    for (const float x : row.embd) {
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        hash = mix(hash, bits);
    }
    return hash | mask_bit;
}

void compute(MockLlama & m, std::vector<MockRow> & rows) {
    for (MockRow & row : rows) {
        for (size_t i = 0; i < m.cells.size(); ++i) {
            if (m.cells[i].pos >= 0 && m.cells[i].pos <= row.pos && m.cells[i].sequences[row.sequences[0]]) {
                row.visible.push_back(i);
            }
        }
        const auto comes_before = [&](size_t a, size_t b) { return m.cells[a].pos < m.cells[b].pos; };
        if ((m.kind == MockMemory::cells || m.n_ids > 0) &&
            !std::is_sorted(row.visible.begin(), row.visible.end(), comes_before)) {
            m.violations.push_back("a row sees cells out of order, which rounds differently");
        }
        std::stable_sort(row.visible.begin(), row.visible.end(), comes_before);
        uint64_t before = MockChain().hash;
        std::vector<int32_t> tokens;
        for (const size_t i : row.visible) {
            tokens.push_back(m.cells[i].token);
            before = i == row.cell ? before : append(before, m.cells[i].pos, m.cells[i].state);
        }
        const uint64_t state = state_of(before, row.pos, input_of(row));
        m.cells[row.cell].state = state;
        const uint64_t hash = append(before, row.pos, state);
        if (row.output) {
            row.logits =
                row.token < 0 ? mask_logits(m, row, hash) : logits_after(logits_key(m, tokens, hash), m.n_vocab);
        }
    }
}

} // namespace mock

uint64_t MockChain::push(int32_t token) {
    const uint64_t state = mock::state_of(hash, n, static_cast<uint64_t>(token));
    hash = mock::append(hash, n++, state);
    return state;
}

std::vector<float> MockLlama::embedding_row(int32_t token) const {
    std::vector<float> row(n_embd, 0.5f); // a constant that no test mask has in its last place
    row[0] = static_cast<float>(token);
    row[1] = static_cast<float>(token * token % 17) - 8.0f;
    return row;
}

} // namespace mp::test
