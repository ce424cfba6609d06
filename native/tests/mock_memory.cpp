// The mock's KV cache: cells with a position and sequence ids, found, freed and copied as in llama.cpp's unified cache
// (llama-kv-cache.cpp, as of llama-cpp-python 0.3.36).
#include "mock_parts.h"

#include <algorithm>
#include <limits>

namespace mp::test::mock {

std::pair<int32_t, int32_t> range_in_memory(const MockLlama & m, int32_t sequence) {
    std::pair<int32_t, int32_t> range{-1, -1};
    for (const MockCell & cell : m.cells) {
        if (cell.pos >= 0 && cell.sequences[sequence]) {
            range.first = range.first < 0 ? cell.pos : std::min(range.first, cell.pos);
            range.second = std::max(range.second, cell.pos);
        }
    }
    return range;
}

void remove_cells(MockLlama & m, int32_t sequence, int32_t p0, int32_t p1) {
    p0 = std::max(p0, 0);
    p1 = p1 < 0 ? std::numeric_limits<int32_t>::max() : p1;
    size_t first_freed = m.cells.size();
    for (size_t i = 0; i < m.cells.size(); ++i) {
        MockCell & cell = m.cells[i];
        if (cell.pos < p0 || cell.pos >= p1 || (sequence >= 0 && !cell.sequences[sequence])) {
            continue;
        }
        if (sequence >= 0) {
            cell.sequences.reset(sequence);
        } else {
            cell.sequences.reset();
        }
        if (cell.sequences.none()) {
            cell = MockCell();
            first_freed = std::min(first_freed, i);
        }
    }
    if (first_freed != m.cells.size() && first_freed < m.head) {
        m.head = first_freed;
    }
}

bool place(MockLlama & m, std::vector<MockRow> & rows) {
    if (m.cells.size() - m.n_used() < rows.size()) {
        return false;
    }
    for (size_t start = 0; start < rows.size(); start += m.n_ubatch) {
        const size_t n = std::min<size_t>(m.n_ubatch, rows.size() - start);
        size_t at = m.head > m.n_used() + 2 * n ? 0 : m.head;
        for (size_t i = start; i < start + n; ++i, ++at) {
            while (m.cells[at % m.cells.size()].pos >= 0) {
                ++at;
            }
            MockCell & cell = m.cells[rows[i].cell = at % m.cells.size()];
            cell.pos = rows[i].pos;
            cell.token = rows[i].token;
            cell.state = input_of(rows[i]); // until the row is computed
            for (const int32_t s : rows[i].sequences) {
                cell.sequences.set(s);
            }
        }
        m.head = rows[start + n - 1].cell + 1;
    }
    return true;
}

void add_memory_functions(LlamaApi & api) {
    api.llama_get_memory = [](const llama_context * ctx) -> llama_memory_i * {
        return self(ctx).has_memory ? self(ctx).memory() : nullptr;
    };
    api.llama_memory_clear = [](llama_memory_i * memory, bool) { self(memory).resize(self(memory).n_ctx); };
    api.llama_memory_seq_rm = [](llama_memory_i * memory, int32_t sequence, int32_t p0, int32_t p1) {
        MockLlama & m = self(memory);
        ++m.n_scans;
        if (m.n_ids > 0 && sequence < 0) {
            m.violations.push_back("cells of all lanes are cut");
        }
        if (!m.can_cut) {
            return false;
        }
        if (m.kind != MockMemory::cells) {
            return remove_state(m, sequence, p0, p1);
        }
        remove_cells(m, sequence, p0, p1);
        return true;
    };
    api.llama_memory_seq_cp = [](llama_memory_i * memory, int32_t from, int32_t to, int32_t p0, int32_t p1) {
        MockLlama & m = self(memory);
        ++m.n_scans;
        const bool has_state = m.kind != MockMemory::cells && to < static_cast<int32_t>(m.n_seq_max);
        if (has_state && (p0 > 0 || p1 >= 0 || m.took_back.count(from) != 0 || m.spoiled.count(from) != 0)) {
            m.violations.push_back("a state is copied that is not that of the cells");
        }
        p0 = std::max(p0, 0);
        p1 = p1 < 0 ? std::numeric_limits<int32_t>::max() : p1;
        for (MockCell & cell : m.cells) {
            if (cell.pos >= p0 && cell.pos < p1 && cell.sequences[from]) {
                cell.sequences.set(to);
            }
        }
    };
}

} // namespace mp::test::mock
