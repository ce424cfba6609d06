// Embedding rows: the right bytes of the right file, dequantized or copied, sums over rows, and what is said
// when the file or the token is not as expected. The gguf functions are mocked; the file on disk is real.
#include "check.h"
#include "embeddings.h"
#include "error.h"
#include "maskprobe.h"
#include "mock_llama.h"

#include <cmath>

using namespace mp;
using namespace mp::test;

namespace {

void f32_rows() {
    const MockLlama llama;
    const MockGguf file(llama);
    Embeddings embeddings({file.path()});
    CHECK_EQ(embeddings.n_embd(), llama.n_embd);
    CHECK_EQ(embeddings.n_vocab(), llama.n_vocab);
    for (const int32_t token : {0, 1, 39, 17, 39}) { // backwards, repeated, first and last
        std::vector<float> row(llama.n_embd);
        embeddings.rows(&token, 1, row.data());
        CHECK_EQ(row, llama.embedding_row(token));
    }
    const std::vector<int32_t> tokens{5, 0, 5, 39};
    std::vector<float> rows(tokens.size() * llama.n_embd);
    embeddings.rows(tokens.data(), tokens.size(), rows.data());
    for (size_t i = 0; i < tokens.size(); ++i) {
        const std::vector<float> row(rows.begin() + i * llama.n_embd, rows.begin() + (i + 1) * llama.n_embd);
        CHECK_EQ(row, llama.embedding_row(tokens[i]));
    }
    CHECK_EQ(n_open_gguf(), 0);
}

void dequantized_rows() {
    const MockGguf file("token_embd.weight", 3, 2, type_i8, {1, 2, 3, -4, -5, 6});
    Embeddings embeddings({file.path()});
    const std::vector<int32_t> tokens{1, 0};
    std::vector<float> rows(6);
    embeddings.rows(tokens.data(), 2, rows.data());
    CHECK_EQ(rows, (std::vector<float>{-2.0f, -2.5f, 3.0f, 0.5f, 1.0f, 1.5f}));
}

void found_in_a_later_split() {
    const MockGguf first("blk.0.attn_q.weight", 3, 2, type_i8, {9, 9, 9, 9, 9, 9});
    const MockGguf second("token_embd.weight", 3, 1, type_i8, {1, 2, 3});
    Embeddings embeddings({first.path(), second.path()});
    CHECK_EQ(embeddings.n_vocab(), 1);
    CHECK_ERROR(MP_ERROR_FILE, "token_embd.weight", Embeddings({first.path()}));
    CHECK_ERROR(MP_ERROR_FILE, "token_embd.weight", Embeddings(std::vector<std::string>{}));
    CHECK_EQ(n_open_gguf(), 0);
}

void unusable_files() {
    CHECK_ERROR(MP_ERROR_FILE, "as GGUF", Embeddings({"nowhere.gguf"}));
    const MockGguf opaque("token_embd.weight", 3, 1, type_opaque, {1, 2, 3});
    CHECK_ERROR(MP_ERROR_FILE, "dequantized", Embeddings({opaque.path()}));
    const MockGguf flat("token_embd.weight", 0, 1, type_i8, {});
    CHECK_ERROR(MP_ERROR_FILE, "impossible shape", Embeddings({flat.path()}));
    const MockGguf tall("token_embd.weight", 3, int64_t{1} << 40, type_i8, {1, 2, 3});
    CHECK_ERROR(MP_ERROR_FILE, "impossible shape", Embeddings({tall.path()}));
    MockGguf cut("token_embd.weight", 3, 2, type_i8, {1, 2, 3, 4, 5, 6});
    cut.truncate(1);
    CHECK_ERROR(MP_ERROR_FILE, "truncated", Embeddings({cut.path()}));
    cut.truncate(40); // now the tensor's offset lies behind the end
    CHECK_ERROR(MP_ERROR_FILE, "truncated", Embeddings({cut.path()}));
    CHECK_EQ(n_open_gguf(), 0);
}

void file_that_shrinks_underneath() {
    MockGguf file("token_embd.weight", 3, 2, type_i8, {1, 2, 3, 4, 5, 6});
    Embeddings embeddings({file.path()});
    file.truncate(2);
    std::vector<float> row(3);
    const int32_t last = 1;
    CHECK_ERROR(MP_ERROR_FILE, "has the file changed", embeddings.rows(&last, 1, row.data()));
    const int32_t first = 0; // the rows that are left can still be read
    embeddings.rows(&first, 1, row.data());
    CHECK_EQ(row, (std::vector<float>{0.5f, 1.0f, 1.5f}));
}

void token_out_of_range() {
    const MockLlama llama;
    const MockGguf file(llama);
    Embeddings embeddings({file.path()});
    std::vector<float> row(llama.n_embd);
    for (const int32_t token : {-1, llama.n_vocab, INT32_MAX, INT32_MIN}) {
        CHECK_ERROR(MP_ERROR_ARGUMENT, std::to_string(token), embeddings.rows(&token, 1, row.data()));
    }
    embeddings.rows(nullptr, 0, nullptr); // no tokens, nothing to do
}

void through_the_abi() {
    const MockLlama llama;
    const MockGguf file(llama);
    const std::string path = file.path();
    const char * paths[] = {path.c_str()};
    mp_embeddings * embeddings = mp_embeddings_init(paths, 1);
    if (!CHECK(embeddings != nullptr)) {
        return;
    }
    CHECK_EQ(mp_embeddings_n_embd(embeddings), llama.n_embd);
    CHECK_EQ(mp_embeddings_n_vocab(embeddings), llama.n_vocab);
    std::vector<float> row(llama.n_embd);
    const int32_t tokens[] = {7, 3, 40};
    CHECK_EQ(mp_embeddings_rows(embeddings, tokens, 1, row.data()), static_cast<int>(MP_OK));
    CHECK_EQ(row, llama.embedding_row(7));
    CHECK_EQ(mp_embeddings_rows(embeddings, tokens + 2, 1, row.data()), static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK(std::string(mp_last_error()).find("token id 40 is outside 0..39") != std::string::npos);
    CHECK_EQ(mp_embeddings_rows(nullptr, tokens, 1, row.data()), static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK_EQ(mp_embeddings_rows(embeddings, nullptr, 1, row.data()), static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK_EQ(mp_embeddings_rows(embeddings, tokens, 1, nullptr), static_cast<int>(MP_ERROR_ARGUMENT));

    std::vector<double> sum(llama.n_embd, 1.0); // adds to what is there
    std::vector<double> squares(llama.n_embd, 2.0);
    CHECK_EQ(mp_embeddings_accumulate(embeddings, tokens, 2, sum.data(), squares.data()), static_cast<int>(MP_OK));
    for (int32_t i = 0; i < llama.n_embd; ++i) {
        const double a = llama.embedding_row(7)[i];
        const double b = llama.embedding_row(3)[i];
        CHECK_EQ(sum[i], 1.0 + a + b);
        CHECK_EQ(squares[i], 2.0 + a * a + b * b);
    }
    CHECK_EQ(mp_embeddings_accumulate(embeddings, tokens + 2, 1, sum.data(), squares.data()),
             static_cast<int>(MP_ERROR_ARGUMENT));
    CHECK_EQ(mp_embeddings_accumulate(embeddings, tokens, 2, nullptr, squares.data()),
             static_cast<int>(MP_ERROR_ARGUMENT));
    mp_embeddings_free(embeddings);
    mp_embeddings_free(nullptr);

    const char * missing[] = {"nowhere.gguf"};
    CHECK(mp_embeddings_init(missing, 1) == nullptr);
    CHECK(std::string(mp_last_error()).find("nowhere.gguf") != std::string::npos);
    CHECK(mp_embeddings_init(nullptr, 1) == nullptr);
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("f32 rows", f32_rows);
    run("dequantized rows", dequantized_rows);
    run("found in a later split", found_in_a_later_split);
    run("unusable files", unusable_files);
    run("file that shrinks underneath", file_that_shrinks_underneath);
    run("token out of range", token_out_of_range);
    run("through the ABI", through_the_abi);
    return finish();
}
