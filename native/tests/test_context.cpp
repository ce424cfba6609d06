// A context as the core sees it, over the mock: its sizes, which tokens it knows, what decoding reports and refuses,
// and which cells remain after they are cut, shared and cleared.
#include "check.h"
#include "context.h"
#include "error.h"
#include "mock_llama.h"

using namespace mp;
using namespace mp::test;

namespace {

void sizes_and_tokens() {
    MockLlama llama;
    llama.resize(70);
    llama.n_batch = 60;
    llama.n_ubatch = 50;
    llama.n_seq_max = 8;
    llama.eog = {7};
    const Context context = llama.context();
    CHECK_EQ(context.n_ctx(), size_t{70});
    CHECK_EQ(context.n_batch(), size_t{60});
    CHECK_EQ(context.n_ubatch(), size_t{50});
    CHECK_EQ(context.n_seq_max(), size_t{8});
    CHECK_EQ(context.n_vocab(), llama.n_vocab);
    CHECK(context.is_eog(7) && !context.is_eog(8));
    context.check_tokens({0, llama.n_vocab - 1});
    CHECK_ERROR(MP_ERROR_ARGUMENT, "token 40 is not", context.check_tokens({0, llama.n_vocab}));
    CHECK_ERROR(MP_ERROR_ARGUMENT, "token -1 is not", context.check_tokens({-1}));
    llama.has_memory = false;
    CHECK_ERROR(MP_ERROR_ARGUMENT, "no KV cache", Context(llama.context()));
}

// A failed decode says which code it was; a row that asked for no logits has none.
void decoding() {
    MockLlama llama;
    const Context context = llama.context();
    Block block = layout_prompt({3, 1, 4}, 0, 1, true);
    CHECK(context.decode(block, nullptr) >= 0.0);
    CHECK_EQ(llama.rows.size(), size_t{3});
    CHECK(context.find_logits(0) == nullptr);
    CHECK_ERROR(MP_ERROR_DECODE, "no logits for row 0", context.logits_of(0));
    CHECK_EQ(std::vector<float>(context.logits_of(2), context.logits_of(2) + context.n_vocab()), llama.rows[2].logits);
    for (const int32_t code : {1, 2, -1, -3}) {
        llama.decode_codes[llama.n_decode_calls] = code;
        Block next = layout_prompt({5}, 3, 1, true);
        CHECK_ERROR(MP_ERROR_DECODE, "(" + std::to_string(code) + ")", context.decode(next, nullptr));
    }
    CHECK_EQ(llama.violations, std::vector<std::string>());
}

void cells() {
    MockLlama llama;
    const Context context = llama.context();
    Block block = layout_prompt({3, 1, 4, 1}, 0, 1, true);
    context.decode(block, nullptr);
    context.share_cells(0, 1, 1, 3);
    std::vector<size_t> n_sequences;
    for (size_t i = 0; i < 4; ++i) {
        n_sequences.push_back(llama.cells[i].sequences.count());
    }
    CHECK_EQ(n_sequences, (std::vector<size_t>{1, 2, 2, 1}));
    CHECK(context.cut_cells(0, 2)); // the third token is sequence 1's still
    CHECK_EQ(llama.n_used(), size_t{3});
    CHECK(context.cut_cells(-1, 1));
    CHECK_EQ(llama.n_used(), size_t{1});
    llama.can_cut = false;
    CHECK(!context.cut_cells(-1, 0));
    CHECK_EQ(llama.n_used(), size_t{1});
    context.clear_cells();
    CHECK_EQ(llama.n_used(), size_t{0});
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("sizes and tokens", sizes_and_tokens);
    run("decoding", decoding);
    run("cells", cells);
    return finish();
}
