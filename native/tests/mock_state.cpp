// What the mock has of a text beside cells it can cut: a recurrent state, and a sequence's cells as bytes.
#include "mock_parts.h"

#include <algorithm>
#include <cstring>

namespace mp::test::mock {

namespace {

// A recurrent state: of the cells before a position.
struct MockState {
    uint64_t hash;
    int32_t end;
};

// Of a sequence's cells before a position; -1: of all of them.
MockState state_of_sequence(const MockLlama & m, int32_t sequence, int32_t end) {
    MockState state{1, end < 0 ? range_in_memory(m, sequence).second + 1 : end};
    for (int32_t pos = 0; pos < state.end; ++pos) {
        for (const MockCell & cell : m.cells) {
            if (cell.pos == pos && cell.sequences[sequence]) {
                state.hash = append(state.hash, pos, cell.state);
            }
        }
    }
    return state;
}

// All cells of a sequence, as bytes.
std::vector<uint8_t> bytes_of_sequence(const MockLlama & m, int32_t sequence) {
    std::vector<uint8_t> bytes;
    for (const MockCell & cell : m.cells) {
        if (cell.pos >= 0 && cell.sequences[sequence]) {
            const auto * first = reinterpret_cast<const uint8_t *>(&cell);
            bytes.insert(bytes.end(), first, first + sizeof cell);
        }
    }
    return bytes;
}

// Puts them into free cells. False, with none left, if there is no room.
bool fill_sequence(MockLlama & m, int32_t sequence, const uint8_t * bytes, size_t size) {
    remove_cells(m, sequence, -1, -1);
    const size_t n = size / sizeof(MockCell);
    if (m.cells.size() - m.n_used() < n) {
        return false;
    }
    size_t at = m.head;
    for (size_t i = 0; i < n; ++i) {
        while (m.cells[at % m.cells.size()].pos >= 0) {
            ++at;
        }
        MockCell & cell = m.cells[at % m.cells.size()];
        std::memcpy(&cell, bytes + i * sizeof cell, sizeof cell);
        cell.sequences.reset();
        cell.sequences.set(sequence);
    }
    return true;
}

} // namespace

bool remove_state(MockLlama & m, int32_t sequence, int32_t p0, int32_t p1) {
    if (p0 <= 0 && p1 < 0) {
        sequence < 0 ? m.spoiled.clear() : void(m.spoiled.erase(sequence));
        m.took_back.erase(sequence);
        m.state_end.erase(sequence);
        remove_cells(m, sequence, -1, -1);
        return true;
    }
    const int32_t end = range_in_memory(m, std::max(sequence, 0)).second;
    if (sequence < 0 || p1 >= 0) {
        return false;
    }
    const auto state = m.state_end.find(sequence);
    if (state != m.state_end.end() && state->second == p0) { // only keys and values go
        m.state_end.erase(state);
        m.took_back.erase(sequence);
        remove_cells(m, sequence, p0, -1);
        return true;
    }
    if (p0 > end) {
        return true;
    }
    const size_t n_rows = static_cast<size_t>(end - p0 + 1);
    if (m.kind == MockMemory::copies || m.took_back.count(sequence) != 0 || n_rows > m.n_snapshots) {
        return false;
    }
    if (n_rows >= m.n_last_rows[sequence] || m.spoiled.count(sequence) != 0) {
        m.violations.push_back("rows are taken back of which there is no snapshot");
    }
    m.took_back.insert(sequence);
    remove_cells(m, sequence, p0, -1);
    return true;
}

std::string check_state(const MockLlama & m, const std::vector<MockRow> & rows) {
    if (m.kind == MockMemory::snapshots && m.n_ubatch <= m.n_snapshots + 1) {
        return "n_ubatch aborts the process";
    }
    std::map<int32_t, size_t> n_rows;
    for (const MockRow & row : rows) {
        if (row.sequences.size() != 1) {
            return "rows of several sequences";
        }
        ++n_rows[row.sequences[0]];
    }
    for (const auto & [sequence, n] : n_rows) {
        if (n_rows.size() > 1 && (m.n_ids == 0 || n != n_rows.begin()->second)) {
            return "sequences with other numbers of rows";
        }
        if (m.spoiled.count(sequence) != 0 || m.state_end.count(sequence) != 0) {
            return "the state is not that of the cells";
        }
    }
    return "";
}

void add_state_functions(LlamaApi & api) {
    api.llama_model_is_recurrent = [](const llama_model *) { return false; };
    api.llama_model_is_hybrid = [](const llama_model * model) { return self(model).kind != MockMemory::cells; };
    api.llama_n_rs_seq = [](const llama_context * ctx) { return self(ctx).n_snapshots; };
    api.llama_state_seq_get_size_ext = [](llama_context * ctx, int32_t sequence, uint32_t flags) {
        return flags == 0 ? bytes_of_sequence(self(ctx), sequence).size() : sizeof(MockState);
    };
    api.llama_state_seq_get_data_ext = [](llama_context * ctx, uint8_t * data, size_t size, int32_t sequence,
                                          uint32_t flags) {
        const bool has_state = self(ctx).kind != MockMemory::cells;
        if (has_state && (self(ctx).spoiled.count(sequence) != 0 || self(ctx).state_end.count(sequence) != 0)) {
            self(ctx).violations.push_back("a state is saved that is not that of the cells");
        }
        if (flags == 0) {
            const std::vector<uint8_t> bytes = bytes_of_sequence(self(ctx), sequence);
            std::copy(bytes.begin(), bytes.end(), data);
            return bytes.size();
        }
        const MockState state = state_of_sequence(self(ctx), sequence, -1);
        std::memcpy(data, &state, sizeof state);
        return size;
    };
    api.llama_state_seq_set_data_ext = [](llama_context * ctx, const uint8_t * data, size_t size, int32_t sequence,
                                          uint32_t flags) -> size_t {
        MockLlama & m = self(ctx);
        if (!m.can_load) {
            return 0;
        }
        if (flags == 0) {
            m.spoiled.erase(sequence);
            m.took_back.erase(sequence);
            m.state_end.erase(sequence);
            return fill_sequence(m, sequence, data, size) ? size : 0;
        }
        MockState state;
        std::memcpy(&state, data, sizeof state);
        if (state_of_sequence(m, sequence, state.end).hash != state.hash) {
            m.violations.push_back("a state is put back that is not that of the cells");
        }
        m.state_end[sequence] = state.end;
        m.spoiled.erase(sequence);
        return size;
    };
}

} // namespace mp::test::mock
