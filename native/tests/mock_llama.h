// A llama.cpp in memory for the tests: one unified KV cache whose cells have a position and a set of sequence
// ids, the rules of its batch checker, and a "model" whose logits are a hash of exactly what a row sees. What
// a cell holds is itself a hash of what its row saw, as keys and values of deeper layers are. So an error in
// visibility, position or in what is kept of a block changes the tokens that come out.
//
// A mask row is told from a token row by its embedding. A mask that sees committed tokens and then the masks
// before it, at the right positions, ranks the token that the model itself would choose for its slot at the
// rank the test asks for; any other mask row gets noise and is counted in n_odd_masks.
#pragma once

#include "llama_api.h"

#include <bitset>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace mp::test {

struct MockCell {
    int32_t pos = -1; // -1: empty
    int32_t token = -1;
    uint64_t state = 0; // of what its row saw
    std::bitset<256> sequences;
};

struct MockRow {
    int32_t pos = 0;
    int32_t token = -1;      // -1: a mask
    std::vector<float> embd; // in units of token_embd rows; empty in a batch of token ids
    bool output = false;
    std::vector<int32_t> sequences;
    size_t cell = 0;
    std::vector<size_t> visible; // cells in order of position, its own included
    std::vector<float> logits;   // of output rows
};

// What its memory is, which decides how drafts can be taken back.
enum class MockMemory {
    cells,     // a KV cache
    snapshots, // and a recurrent state, of which the last n_snapshots rows of a decode can be taken back, once; one for
               // each lane where lanes share the memory
    copies     // and a recurrent state that is kept or dropped whole
};

struct MockLlama {
    // Model and context.
    MockMemory kind = MockMemory::cells;
    uint32_t n_snapshots = 0;
    int32_t n_embd_more = 0; // zeros behind each embedding row
    bool has_four_positions = false;
    int32_t n_vocab = 40;
    int32_t n_embd = 4;
    uint32_t n_ctx = 128;
    uint32_t n_batch = 128;
    uint32_t n_ubatch = 128;
    uint32_t n_seq_max = 256;
    float embedding_scale = 1.0f;
    std::set<int32_t> eog;
    bool has_memory = true;
    size_t n_remembered = 0; // 0: logits depend on all that a row sees, n: on the last n tokens, so text repeats
    bool can_cut = true;     // false: seq_rm fails
    bool can_load = true;    // false: a state is not put back
    // Lanes share it, with so many sequences each (0: one text has it alone): rows are of one lane, nothing touches all
    // cells, and there are no holes between them. nobodys: the sequences that are no lane's and never in a batch.
    int32_t n_ids = 0;
    std::set<int32_t> nobodys;

    // How good the masks are: the rank of the true token for a position, given by the mask with this index; -1 is
    // never. And the logit that each rank gets.
    std::function<int32_t(int32_t pos, size_t mask)> rank_of_truth = [](int32_t, size_t) { return 0; };
    std::function<float(int32_t rank)> logit_of_rank = [](int32_t rank) { return -0.3f * static_cast<float>(rank); };

    // Memory.
    std::vector<MockCell> cells = std::vector<MockCell>(n_ctx);
    size_t head = 0;

    // Of recurrent states, by sequence: rows of the last decode, if it had any of them; those of which some were taken
    // back since; those that a failed decode has spoiled; and where states that were put back end.
    std::map<int32_t, size_t> n_last_rows;
    std::set<int32_t> took_back;
    std::set<int32_t> spoiled;
    std::map<int32_t, int32_t> state_end;

    // What happened.
    std::vector<MockRow> rows;                 // of the last call of llama_decode that succeeded
    std::vector<std::vector<MockRow>> history; // of all of them
    std::vector<std::string> violations;       // what llama.cpp would have rejected, or aborted the process for
    size_t n_odd_masks = 0;
    size_t n_decode_calls = 0;
    size_t n_logits_calls = 0;
    int32_t n_scans = 0;          // calls of seq_rm and seq_cp
    bool null_was_a_mask = false; // the row whose logits were withheld

    // Faults, by the index of the call.
    std::map<size_t, int32_t> decode_codes;
    std::set<size_t> null_logits;

    // The same model with an empty memory, no faults and nothing logged.
    MockLlama fresh() const;
    void resize(uint32_t n_cells); // also sets n_ctx
    size_t n_used() const;
    std::vector<float> embedding_row(int32_t token) const;

    llama_context * context() { return reinterpret_cast<llama_context *>(this); }
    llama_memory_i * memory() { return reinterpret_cast<llama_memory_i *>(this); }
};

// What a model knows after a sequence of tokens at positions 0.. : its state, and its next token.
struct MockChain {
    uint64_t hash = 1;
    int32_t n = 0;
    // Appends a token and returns the state of its cell.
    uint64_t push(int32_t token);
};

struct MockDraw {
    int32_t pos; // of the row drawn from
    int32_t token;
};

// argmax, or draws from the softmax with a stream of random numbers that moves by one per draw.
struct MockSampler {
    uint64_t seed = 0;           // 0: argmax
    size_t n_allowed = SIZE_MAX; // draws before it rules every token out
    std::vector<MockDraw> draws;
    llama_sampler * get() { return reinterpret_cast<llama_sampler *>(this); }
};

LlamaApi mock_api();

// --- GGUF -------------------------------------------------------------------------------------------

constexpr int32_t type_f32 = 0;
constexpr int32_t type_i8 = 1;     // one int8 a value
constexpr int32_t type_opaque = 2; // cannot be dequantized

// A file in a directory of its own that the mocked gguf functions know, with a tensor at some offset.
class MockGguf {
public:
    MockGguf(const std::string & tensor, int64_t n_embd, int64_t n_rows, int32_t type, const std::vector<char> & data);
    // token_embd.weight of a mock, F32.
    explicit MockGguf(const MockLlama & llama);
    ~MockGguf();
    MockGguf(const MockGguf &) = delete;
    MockGguf & operator=(const MockGguf &) = delete;

    std::string path() const { return path_.u8string(); }
    void truncate(size_t n_bytes_less);

private:
    std::filesystem::path path_;
};

// The gguf and ggml part of the table.
void add_gguf_functions(LlamaApi & api);

// How many gguf_contexts are not freed yet.
int n_open_gguf();

} // namespace mp::test
