// The mocked llama_* functions. The rules follow llama.cpp's batch checker (llama-batch.cpp) and unified KV
// cache (llama-kv-cache.cpp) as of llama-cpp-python 0.3.36.
#include "mock_llama.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace mp::test {

namespace {

constexpr uint64_t mask_bit = uint64_t{1} << 63;

uint64_t mix(uint64_t h, uint64_t v) {
    h += 0x9E3779B97F4A7C15u + v * 0xD6E8FEB86659FD93u;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

float unit(uint64_t h) { return static_cast<float>(h >> 40) * (1.0f / 16777216.0f); }

MockLlama & self(const void * handle) { return *static_cast<MockLlama *>(const_cast<void *>(handle)); }

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

int32_t argmax(const std::vector<float> & logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

uint64_t state_of(uint64_t before, int32_t pos, uint64_t input) {
    return mix(mix(before, static_cast<uint64_t>(pos)), input);
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

// --- the batch --------------------------------------------------------------------------------------

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

// The positions that memory holds of a sequence, {-1, -1} for none.
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

// --- memory -----------------------------------------------------------------------------------------

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

// llama.cpp's seq_rm where there is a recurrent state. False: it refuses. What it accepts and does wrong is a
// violation.
bool remove_state(MockLlama & m, int32_t sequence, int32_t p0, int32_t p1) {
    if (p0 <= 0 && p1 < 0) {
        sequence < 0 ? m.spoiled.clear() : void(m.spoiled.erase(sequence));
        remove_cells(m, sequence, -1, -1);
        return true;
    }
    const int32_t end = range_in_memory(m, std::max(sequence, 0)).second;
    if (sequence < 0 || p1 >= 0) {
        return false;
    }
    if (m.state_end == p0) { // only keys and values go
        m.state_end = -1;
        m.took_back = false;
        remove_cells(m, sequence, p0, -1);
        return true;
    }
    if (p0 > end) {
        return true;
    }
    const size_t n_rows = static_cast<size_t>(end - p0 + 1);
    if (m.kind == MockMemory::copies || m.took_back || n_rows > m.n_snapshots) {
        return false;
    }
    if (n_rows >= m.n_last_rows || m.spoiled.count(sequence) != 0) {
        m.violations.push_back("rows are taken back of which there is no snapshot");
    }
    m.took_back = true;
    remove_cells(m, sequence, p0, -1);
    return true;
}

// What is wrong with rows for a recurrent state, or nothing.
std::string check_state(const MockLlama & m, const std::vector<MockRow> & rows) {
    if (m.kind == MockMemory::snapshots && m.n_ubatch <= m.n_snapshots + 1) {
        return "n_ubatch aborts the process";
    }
    for (const MockRow & row : rows) {
        if (row.sequences.size() != 1 || row.sequences != rows[0].sequences) {
            return "rows of several sequences";
        }
    }
    if (m.spoiled.count(rows[0].sequences[0]) != 0 || m.state_end >= 0) {
        return "the state is not that of the cells";
    }
    return "";
}

// Takes cells for the rows, n_ubatch at a time; false, with nothing changed, if there is no room.
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

// --- the model --------------------------------------------------------------------------------------

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

void compute(MockLlama & m, std::vector<MockRow> & rows) {
    for (MockRow & row : rows) {
        for (size_t i = 0; i < m.cells.size(); ++i) {
            if (m.cells[i].pos >= 0 && m.cells[i].pos <= row.pos && m.cells[i].sequences[row.sequences[0]]) {
                row.visible.push_back(i);
            }
        }
        const auto comes_before = [&](size_t a, size_t b) { return m.cells[a].pos < m.cells[b].pos; };
        if (m.kind == MockMemory::cells && !std::is_sorted(row.visible.begin(), row.visible.end(), comes_before)) {
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

int32_t decode(llama_context * ctx, llama_batch batch) {
    MockLlama & m = self(ctx);
    m.rows.clear(); // outputs of the batch before are gone, whatever happens now
    const size_t call = m.n_decode_calls++;
    if (batch.n_tokens <= 0 || static_cast<uint32_t>(batch.n_tokens) > m.n_batch ||
        (batch.token == nullptr) == (batch.embd == nullptr)) {
        m.violations.push_back("a batch of " + std::to_string(batch.n_tokens) + " rows aborts the process");
        return -1;
    }
    std::vector<MockRow> rows = read_rows(m, batch);
    std::string wrong = check_rows(m, rows, batch.embd == nullptr);
    if (wrong.empty() && m.kind != MockMemory::cells) {
        wrong = check_state(m, rows);
    }
    if (wrong.empty() && m.n_ids > 0) {
        wrong = check_lanes(m, rows);
    }
    if (!wrong.empty()) {
        m.violations.push_back(wrong);
        return -1;
    }
    const auto fault = m.decode_codes.find(call);
    const int32_t code = fault == m.decode_codes.end() ? 0 : fault->second;
    if (code == 1 || code == -1) {
        return code;
    }
    if (!place(m, rows)) {
        return 1;
    }
    if (code != 0) {
        // An aborted or failed ubatch loses the first sequence of each of its rows only.
        std::map<int32_t, int32_t> first_pos;
        for (const MockRow & row : rows) {
            first_pos.emplace(row.sequences[0], row.pos);
        }
        for (const auto & [sequence, pos] : first_pos) {
            remove_cells(m, sequence, pos, -1);
            m.spoiled.insert(sequence);
        }
        return code;
    }
    m.n_last_rows = rows.size();
    m.took_back = false;
    compute(m, rows);
    m.rows = rows;
    m.history.push_back(std::move(rows));
    return 0;
}

float * logits_of(MockLlama & m, int32_t row) {
    const bool has = row >= 0 && static_cast<size_t>(row) < m.rows.size() && m.rows[row].output;
    return has ? m.rows[row].logits.data() : nullptr;
}

// Samplers see logits alone; the row that was last asked for tells where they come from.
thread_local int32_t last_asked_pos = -1;

void apply(llama_sampler * handle, llama_token_data_array * candidates) {
    const MockSampler & sampler = *reinterpret_cast<MockSampler *>(handle);
    std::vector<float> logits;
    for (size_t i = 0; i < candidates->size; ++i) {
        if (sampler.draws.size() >= sampler.n_allowed) {
            candidates->data[i].logit = -std::numeric_limits<float>::infinity();
        }
        logits.push_back(candidates->data[i].logit);
    }
    int32_t token = argmax(logits);
    if (sampler.seed != 0) {
        double total = 0.0;
        for (const float x : logits) {
            total += std::exp(static_cast<double>(x));
        }
        const int32_t n_vocab = static_cast<int32_t>(logits.size());
        double left = total * unit(mix(sampler.seed, sampler.draws.size()));
        for (token = 0; token + 1 < n_vocab; ++token) {
            left -= std::exp(static_cast<double>(logits[token]));
            if (left < 0.0) {
                break;
            }
        }
    }
    candidates->selected = token;
}

void accept(llama_sampler * handle, int32_t token) {
    reinterpret_cast<MockSampler *>(handle)->draws.push_back({last_asked_pos, token});
}

} // namespace

uint64_t MockChain::push(int32_t token) {
    const uint64_t state = state_of(hash, n, static_cast<uint64_t>(token));
    hash = append(hash, n++, state);
    return state;
}

MockLlama MockLlama::fresh() const {
    MockLlama other;
    other.n_vocab = n_vocab;
    other.n_embd = n_embd;
    other.n_batch = n_batch;
    other.n_ubatch = n_ubatch;
    other.n_seq_max = n_seq_max;
    other.kind = kind;
    other.n_snapshots = n_snapshots;
    other.n_embd_more = n_embd_more;
    other.has_four_positions = has_four_positions;
    other.embedding_scale = embedding_scale;
    other.eog = eog;
    other.n_ids = n_ids;
    other.nobodys = nobodys;
    other.n_remembered = n_remembered;
    other.rank_of_truth = rank_of_truth;
    other.logit_of_rank = logit_of_rank;
    other.resize(n_ctx);
    return other;
}

void MockLlama::resize(uint32_t n_cells) {
    n_ctx = n_cells;
    cells.assign(n_cells, MockCell());
    head = 0;
    n_last_rows = 0;
    took_back = false;
    spoiled.clear();
    state_end = -1;
}

size_t MockLlama::n_used() const {
    return std::count_if(cells.begin(), cells.end(), [](const MockCell & cell) { return cell.pos >= 0; });
}

std::vector<float> MockLlama::embedding_row(int32_t token) const {
    std::vector<float> row(n_embd, 0.5f); // a constant that no test mask has in its last place
    row[0] = static_cast<float>(token);
    row[1] = static_cast<float>(token * token % 17) - 8.0f;
    return row;
}

LlamaApi mock_api() {
    LlamaApi api;
    api.llama_decode = decode;
    api.llama_synchronize = [](llama_context *) {};
    api.llama_get_logits_ith = [](llama_context * ctx, int32_t row) -> float * {
        MockLlama & m = self(ctx);
        float * logits = logits_of(m, row);
        last_asked_pos = logits == nullptr ? -1 : m.rows[row].pos;
        if (m.null_logits.count(m.n_logits_calls++) != 0) {
            m.null_was_a_mask = logits != nullptr && m.rows[row].token < 0;
            return nullptr;
        }
        return logits;
    };
    api.llama_n_ctx = [](const llama_context * ctx) { return self(ctx).n_ctx; };
    api.llama_n_batch = [](const llama_context * ctx) { return self(ctx).n_batch; };
    api.llama_n_ubatch = [](const llama_context * ctx) { return self(ctx).n_ubatch; };
    api.llama_n_seq_max = [](const llama_context * ctx) { return self(ctx).n_seq_max; };
    api.llama_get_model = [](const llama_context * ctx) { return reinterpret_cast<const llama_model *>(ctx); };
    api.llama_model_get_vocab = [](const llama_model * model) { return reinterpret_cast<const llama_vocab *>(model); };
    api.llama_vocab_n_tokens = [](const llama_vocab * vocab) { return self(vocab).n_vocab; };
    api.llama_vocab_is_eog = [](const llama_vocab * vocab, int32_t token) { return self(vocab).eog.count(token) != 0; };
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
        if (m.kind != MockMemory::cells && (p0 > 0 || p1 >= 0 || m.took_back || m.spoiled.count(from) != 0)) {
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
    api.llama_model_n_embd_inp = [](const llama_model * model) { return self(model).n_embd + self(model).n_embd_more; };
    api.llama_model_is_recurrent = [](const llama_model *) { return false; };
    api.llama_model_is_hybrid = [](const llama_model * model) { return self(model).kind != MockMemory::cells; };
    api.llama_n_rs_seq = [](const llama_context * ctx) { return self(ctx).n_snapshots; };
    api.llama_state_seq_get_size_ext = [](llama_context * ctx, int32_t sequence, uint32_t flags) {
        return flags == 0 ? bytes_of_sequence(self(ctx), sequence).size() : sizeof(MockState);
    };
    api.llama_state_seq_get_data_ext = [](llama_context * ctx, uint8_t * data, size_t size, int32_t sequence,
                                          uint32_t flags) {
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
            return fill_sequence(m, sequence, data, size) ? size : 0;
        }
        MockState state;
        std::memcpy(&state, data, sizeof state);
        if (state_of_sequence(m, sequence, state.end).hash != state.hash) {
            m.violations.push_back("a state is put back that is not that of the cells");
        }
        m.state_end = state.end;
        m.spoiled.erase(sequence);
        return size;
    };
    api.llama_sampler_apply = apply;
    api.llama_sampler_accept = accept;
    add_gguf_functions(api);
#define MOCKED(result, name, parameters)                                                                               \
    if (api.name == nullptr) {                                                                                         \
        throw std::logic_error("the mock lacks " #name);                                                               \
    }
    MP_LLAMA_FUNCTIONS(MOCKED)
#undef MOCKED
    return api;
}

} // namespace mp::test
