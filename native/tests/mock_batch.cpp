// The rows of a batch, and what is wrong with them: the rules are those of llama.cpp's batch checker (llama-batch.cpp)
// as of llama-cpp-python 0.3.36.
#include "mock_parts.h"

#include <algorithm>

namespace mp::test::mock {

namespace {

// What the batch checker finds wrong, or nothing.
std::string check_rows(const MockLlama & m, const std::vector<MockRow> & rows, bool by_id) {
    std::map<int32_t, std::set<int32_t>> positions; // of each sequence in the batch
    std::map<int32_t, int32_t> last;
    for (const MockRow & row : rows) {
        if (by_id && (row.token < 0 || row.token >= m.n_vocab)) {
            return "invalid token " + std::to_string(row.token);
        }
        if (row.sequences.empty() ||
            std::set<int32_t>(row.sequences.begin(), row.sequences.end()).size() != row.sequences.size()) {
            return "a row without sequence ids, or with one twice";
        }
        for (const int32_t s : row.sequences) {
            if (s < 0 || s >= static_cast<int32_t>(m.n_seq_max)) {
                return "invalid sequence id " + std::to_string(s);
            }
            if (last.count(s) != 0 && row.pos < last[s]) {
                return "positions of sequence " + std::to_string(s) + " decrease";
            }
            last[s] = row.pos;
            positions[s].insert(row.pos);
        }
    }
    for (const auto & [s, set] : positions) {
        const int32_t end = range_in_memory(m, s).second;
        if (end >= 0 && *set.begin() != end + 1) {
            return "sequence " + std::to_string(s) + " starts at " + std::to_string(*set.begin()) +
                   ", memory ends at " + std::to_string(end);
        }
        if (*set.rbegin() - *set.begin() + 1 > static_cast<int32_t>(set.size())) {
            return "positions of sequence " + std::to_string(s) + " have a gap";
        }
    }
    std::map<int32_t, std::pair<int32_t, int32_t>> in_memory;
    for (const auto & [s, set] : positions) {
        in_memory[s] = range_in_memory(m, s);
    }
    for (const MockRow & row : rows) {
        for (const int32_t s : row.sequences) {
            if (in_memory[s] != in_memory[row.sequences[0]]) {
                return "coupled sequences " + std::to_string(row.sequences[0]) + " and " + std::to_string(s) +
                       " have diverged";
            }
        }
    }
    return "";
}

// What breaks a promise of lanes that share the memory, or nothing.
std::string check_lanes(const MockLlama & m, const std::vector<MockRow> & rows) {
    for (const MockRow & row : rows) {
        for (const int32_t s : row.sequences) {
            if (m.nobodys.count(s) != 0) {
                return "a row in sequence " + std::to_string(s) + ", which is nobody's";
            }
            if (s / m.n_ids != row.sequences[0] / m.n_ids) {
                return "a row of two lanes";
            }
        }
    }
    for (size_t i = m.n_used(); i < m.cells.size(); ++i) {
        if (m.cells[i].pos >= 0) {
            return "a hole between the cells";
        }
    }
    return "";
}

} // namespace

std::vector<MockRow> read_rows(MockLlama & m, const llama_batch & batch) {
    std::vector<MockRow> rows(batch.n_tokens);
    const int32_t n = batch.n_tokens;
    for (int32_t i = 0; i < n; ++i) {
        MockRow & row = rows[i];
        row.pos = batch.pos[i];
        if (m.has_four_positions && batch.embd != nullptr &&
            (batch.pos[n + i] != row.pos || batch.pos[2 * n + i] != row.pos || batch.pos[3 * n + i] != 0)) {
            m.violations.push_back("an embedding row's positions are not p, p, p, 0");
        }
        row.output = batch.logits[i] != 0;
        row.sequences.assign(batch.seq_id[i], batch.seq_id[i] + batch.n_seq_id[i]);
        if (batch.embd == nullptr) {
            row.token = batch.token[i];
            continue;
        }
        const float * embd = batch.embd + i * (m.n_embd + m.n_embd_more);
        row.embd.assign(embd, embd + m.n_embd);
        if (std::any_of(embd + m.n_embd, embd + m.n_embd + m.n_embd_more, [](float x) { return x != 0.0f; })) {
            m.violations.push_back("there are no zeros behind an embedding");
        }
        for (float & x : row.embd) {
            x /= m.embedding_scale;
        }
        const float first = row.embd[0];
        if (first >= 0.0f && first < static_cast<float>(m.n_vocab) &&
            row.embd == m.embedding_row(static_cast<int32_t>(first))) {
            row.token = static_cast<int32_t>(first);
        }
    }
    return rows;
}

std::string check_batch(const MockLlama & m, const std::vector<MockRow> & rows, bool by_id) {
    std::string wrong = check_rows(m, rows, by_id);
    if (wrong.empty() && m.kind != MockMemory::cells) {
        wrong = check_state(m, rows);
    }
    if (wrong.empty() && m.n_ids > 0) {
        wrong = check_lanes(m, rows);
    }
    return wrong;
}

} // namespace mp::test::mock
