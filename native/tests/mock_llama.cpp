// The mocked llama_* functions: one decode, and the table of all of them.
#include "mock_parts.h"

#include <algorithm>
#include <stdexcept>

namespace mp::test {

using mock::self;

namespace {

int32_t decode(llama_context * ctx, llama_batch batch) {
    MockLlama & m = self(ctx);
    m.rows.clear(); // outputs of the batch before are gone, whatever happens now
    const size_t call = m.n_decode_calls++;
    if (batch.n_tokens <= 0 || static_cast<uint32_t>(batch.n_tokens) > m.n_batch ||
        (batch.token == nullptr) == (batch.embd == nullptr)) {
        m.violations.push_back("a batch of " + std::to_string(batch.n_tokens) + " rows aborts the process");
        return -1;
    }
    std::vector<MockRow> rows = mock::read_rows(m, batch);
    const std::string wrong = mock::check_batch(m, rows, batch.embd == nullptr);
    if (!wrong.empty()) {
        m.violations.push_back(wrong);
        return -1;
    }
    const auto fault = m.decode_codes.find(call);
    const int32_t code = fault == m.decode_codes.end() ? 0 : fault->second;
    if (code == 1 || code == -1) {
        return code;
    }
    if (!mock::place(m, rows)) {
        return 1;
    }
    if (code != 0) {
        // An aborted or failed ubatch loses the first sequence of each of its rows only.
        std::map<int32_t, int32_t> first_pos;
        for (const MockRow & row : rows) {
            first_pos.emplace(row.sequences[0], row.pos);
        }
        for (const auto & [sequence, pos] : first_pos) {
            mock::remove_cells(m, sequence, pos, -1);
            m.spoiled.insert(sequence);
        }
        for (uint32_t s = 0; m.n_ids > 0 && s < m.n_seq_max; ++s) {
            m.spoiled.insert(static_cast<int32_t>(s)); // states are moved to make room for those of the rows
        }
        return code;
    }
    m.n_last_rows.clear();
    for (const MockRow & row : rows) {
        ++m.n_last_rows[row.sequences[0]];
        m.took_back.erase(row.sequences[0]);
    }
    mock::compute(m, rows);
    m.rows = rows;
    m.history.push_back(std::move(rows));
    return 0;
}

} // namespace

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
    n_last_rows.clear();
    took_back.clear();
    spoiled.clear();
    state_end.clear();
}

size_t MockLlama::n_used() const {
    return std::count_if(cells.begin(), cells.end(), [](const MockCell & cell) { return cell.pos >= 0; });
}

LlamaApi mock_api() {
    LlamaApi api;
    api.llama_decode = decode;
    api.llama_synchronize = [](llama_context *) {};
    api.llama_n_ctx = [](const llama_context * ctx) { return self(ctx).n_ctx; };
    api.llama_n_batch = [](const llama_context * ctx) { return self(ctx).n_batch; };
    api.llama_n_ubatch = [](const llama_context * ctx) { return self(ctx).n_ubatch; };
    api.llama_n_seq_max = [](const llama_context * ctx) { return self(ctx).n_seq_max; };
    api.llama_get_model = [](const llama_context * ctx) { return reinterpret_cast<const llama_model *>(ctx); };
    api.llama_model_get_vocab = [](const llama_model * model) { return reinterpret_cast<const llama_vocab *>(model); };
    api.llama_vocab_n_tokens = [](const llama_vocab * vocab) { return self(vocab).n_vocab; };
    api.llama_vocab_is_eog = [](const llama_vocab * vocab, int32_t token) { return self(vocab).eog.count(token) != 0; };
    api.llama_model_n_embd_inp = [](const llama_model * model) { return self(model).n_embd + self(model).n_embd_more; };
    mock::add_memory_functions(api);
    mock::add_state_functions(api);
    mock::add_sampler_functions(api);
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
