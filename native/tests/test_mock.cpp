// The mock itself: it must reject what llama.cpp rejects and keep cells as llama.cpp keeps them, or the tests
// that lean on it prove nothing. Each rule is broken once.
#include "block.h"
#include "check.h"
#include "mock_llama.h"

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

struct Row {
    int32_t token;
    int32_t pos;
    Ids sequences;
};

int32_t decode(MockLlama & llama, const std::vector<Row> & rows) {
    Block block;
    for (const Row & row : rows) {
        block.token.push_back(row.token);
        block.pos.push_back(row.pos);
        block.output.push_back(1);
        block.sequences.push_back(row.sequences);
    }
    return mock_api().llama_decode(llama.context(), BatchView(block, nullptr).get());
}

// Sequences 0 and 1 share positions 0 and 1.
MockLlama with_prefix() {
    MockLlama llama;
    CHECK_EQ(decode(llama, {{5, 0, {0, 1}}, {6, 1, {0, 1}}}), 0);
    return llama;
}

void rejects() {
    const std::vector<std::pair<std::string, std::vector<Row>>> cases{
        {"starts at 3, memory ends at 1", {{7, 3, {0}}}},
        {"starts at 1, memory ends at 1", {{7, 1, {0}}}},
        {"gap", {{7, 2, {0}}, {8, 4, {0}}}},
        {"decrease", {{7, 2, {0}}, {8, 3, {0}}, {9, 2, {0}}}},
        {"diverged", {{7, 2, {0, 2}}}}, // memory holds nothing of 2
        {"invalid token", {{40, 2, {0}}}},
        {"invalid token", {{-1, 2, {0}}}},
        {"invalid sequence id", {{7, 2, {256}}}},
        {"without sequence ids", {{7, 2, {}}}},
        {"aborts", {}},
        {"aborts", std::vector<Row>(129, Row{7, 2, {0}})},
    };
    for (const auto & [says, rows] : cases) {
        const Scope scope(says);
        MockLlama llama = with_prefix();
        CHECK_EQ(decode(llama, rows), -1);
        CHECK(llama.violations.size() == 1 && llama.violations[0].find(says) != std::string::npos);
        CHECK_EQ(llama.n_used(), size_t{2});
    }
    MockLlama llama = with_prefix();
    CHECK_EQ(decode(llama, {{7, 2, {0, 1}}, {8, 3, {0}}, {9, 3, {1}}}), 0);
    mock_api().llama_memory_seq_rm(llama.memory(), 1, 3, -1);
    CHECK_EQ(decode(llama, {{7, 3, {0, 1}}}), -1); // 0 ends at 3, 1 at 2
}

void sees_by_first_sequence() {
    MockLlama llama = with_prefix();
    CHECK_EQ(decode(llama, {{7, 2, {0, 1}}, {8, 3, {0}}, {9, 3, {1}}, {10, 4, {1}}}), 0);
    CHECK_EQ(llama.rows[0].visible, (std::vector<size_t>{0, 1, 2}));
    CHECK_EQ(llama.rows[1].visible, (std::vector<size_t>{0, 1, 2, 3}));
    CHECK_EQ(llama.rows[3].visible, (std::vector<size_t>{0, 1, 2, 4, 5}));
    MockChain chain;
    for (const int32_t token : {5, 6, 7, 9, 10}) {
        const uint64_t state = chain.push(token);
        CHECK_EQ(state, llama.cells[token == 9 ? 4 : token == 10 ? 5 : token - 5].state);
    }
}

void logits_depend_on_everything_seen() {
    const auto logits = [](const std::vector<Row> & rows) {
        MockLlama llama;
        CHECK_EQ(decode(llama, rows), 0);
        return llama.rows.back().logits;
    };
    const std::vector<float> base = logits({{5, 0, {0}}, {6, 1, {0}}, {7, 2, {0}}});
    CHECK(base == logits({{5, 0, {3}}, {6, 1, {3}}, {7, 2, {3}}}));
    CHECK(base == logits({{5, 0, {0, 1}}, {6, 1, {0}}, {9, 1, {1}}, {7, 2, {0}}}));
    CHECK(base != logits({{6, 0, {0}}, {5, 1, {0}}, {7, 2, {0}}}));
    CHECK(base != logits({{5, 1, {0}}, {6, 2, {0}}, {7, 3, {0}}}));
    CHECK(base != logits({{6, 1, {0}}, {7, 2, {0}}}));
    CHECK(base != logits({{5, 0, {0, 1}}, {6, 1, {1}}, {6, 1, {0}}, {9, 1, {0}}, {7, 2, {0}}}));
}

void cells_are_reused_from_the_first_freed() {
    MockLlama llama = with_prefix();
    const LlamaApi api = mock_api();
    CHECK_EQ(decode(llama, {{7, 2, {0}}, {8, 2, {1}}, {9, 3, {1}}}), 0);
    CHECK_EQ(llama.head, size_t{5});
    api.llama_memory_seq_rm(llama.memory(), 1, 2, -1);
    CHECK_EQ(llama.head, size_t{3});
    CHECK_EQ(llama.n_used(), size_t{3});
    api.llama_memory_seq_cp(llama.memory(), 0, 1, 2, 3);
    CHECK(llama.cells[2].sequences[1] && !llama.cells[3].sequences[1]);
    CHECK_EQ(decode(llama, {{9, 3, {0, 1}}}), 0);
    CHECK_EQ(llama.rows[0].cell, size_t{3});
    api.llama_memory_seq_rm(llama.memory(), 1, 0, 3); // cells that another sequence holds stay
    CHECK_EQ(llama.n_used(), size_t{4});
    api.llama_memory_seq_rm(llama.memory(), -1, 1, -1);
    CHECK_EQ(llama.n_used(), size_t{1});
    CHECK_EQ(llama.head, size_t{1});
    api.llama_memory_clear(llama.memory(), false);
    CHECK_EQ(llama.n_used(), size_t{0});
}

void room() {
    MockLlama llama;
    llama.resize(4);
    CHECK_EQ(decode(llama, {{5, 0, {0}}, {6, 1, {0}}, {7, 2, {0}}}), 0);
    CHECK_EQ(decode(llama, {{5, 3, {0}}, {6, 4, {0}}}), 1);
    CHECK_EQ(llama.n_used(), size_t{3});
    CHECK_EQ(decode(llama, {{5, 3, {0}}}), 0);
    CHECK_EQ(llama.violations, std::vector<std::string>());
}

void failure_leaves_rows_behind() {
    MockLlama llama = with_prefix();
    llama.decode_codes[1] = 2;
    CHECK_EQ(decode(llama, {{7, 2, {0, 1}}, {8, 3, {0}}, {9, 3, {1}}}), 2);
    CHECK_EQ(llama.n_used(), size_t{3}); // the shared row still belongs to sequence 1
    CHECK(mock_api().llama_get_logits_ith(llama.context(), 0) == nullptr);
}

} // namespace

int main() {
    run("rejects", rejects);
    run("sees by first sequence", sees_by_first_sequence);
    run("logits depend on everything seen", logits_depend_on_everything_seen);
    run("cells are reused from the first freed", cells_are_reused_from_the_first_freed);
    run("room", room);
    run("failure leaves rows behind", failure_leaves_rows_behind);
    return finish();
}
