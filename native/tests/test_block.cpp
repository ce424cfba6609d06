// Blocks: what each row holds, and what it sees. The rows that each row sees are worked out from the definition
// (committed tokens, ancestors, the earlier masks of the same node, itself) and compared with what the mock KV
// cache makes of the block's sequence ids and positions, for random trees with different masks on each node.
// The mock also holds every block to the batch checker's rules.
#include "block.h"
#include "check.h"
#include "mock_llama.h"

#include <algorithm>
#include <set>

using namespace mp;
using namespace mp::test;

namespace {

using Ids = std::vector<int32_t>;

Ids up_to(int32_t n) {
    Ids ids(n);
    for (int32_t i = 0; i < n; ++i) {
        ids[i] = i;
    }
    return ids;
}

struct Case {
    DraftTree tree{0};
    Ids masks_of_node;
    Ids pending;
    int32_t n_past = 0;
    int32_t n_sequences = 1; // that committed cells carry

    Block layout() const { return layout_block(pending, tree, masks_of_node, n_past, n_sequences); }
};

Case random_case(std::mt19937 & rng) {
    Case c;
    c.n_past = below(rng, 12);
    for (int32_t i = below(rng, 4); i >= 0; --i) {
        c.pending.push_back(below(rng, 40));
    }
    c.tree = DraftTree(c.pending.back());
    for (int32_t n = below(rng, 12); n > 0; --n) {
        // Siblings need distinct tokens; which ones is of no matter here.
        c.tree.add(below(rng, static_cast<int32_t>(c.tree.size())), static_cast<int32_t>(c.tree.size()),
                   -0.01f * static_cast<float>(1 + below(rng, 100)));
    }
    const int32_t same = below(rng, 8); // 0..4: that many on every node, else drawn per node
    for (size_t i = 0; i < c.tree.size(); ++i) {
        c.masks_of_node.push_back(same <= 4 ? same : below(rng, 5));
    }
    c.n_sequences = count_leaves(c.tree, c.masks_of_node) + below(rng, 4);
    return c;
}

// The rows of the block that a row sees by definition, itself included.
std::set<int32_t> visible_by_definition(const Case & c, const Block & block, int32_t row) {
    std::set<int32_t> seen;
    for (int32_t i = 0; i < block.n_again && i <= row; ++i) {
        seen.insert(i);
    }
    for (int32_t node = 0; node < static_cast<int32_t>(c.tree.size()); ++node) {
        const int32_t first_mask = block.row_of_mask[node];
        const bool is_node = block.row_of_node[node] == row;
        const bool is_mask = first_mask >= 0 && row >= first_mask && row < first_mask + c.masks_of_node[node];
        if (!is_node && !is_mask) {
            continue;
        }
        for (int32_t a = node; a >= 0; a = c.tree.parent[a]) {
            seen.insert(block.row_of_node[a]);
        }
        for (int32_t mask_row = first_mask; is_mask && mask_row <= row; ++mask_row) {
            seen.insert(mask_row);
        }
    }
    return seen;
}

std::vector<float> mask_embedding(const MockLlama & llama, int32_t i) {
    return std::vector<float>(llama.n_embd, 1000.25f + static_cast<float>(i));
}

// Decodes the prefix and then the block, and returns for each row of the block the rows it saw.
std::vector<std::set<int32_t>> visible_in_mock(const Case & c, Block & block) {
    MockLlama llama;
    const LlamaApi api = mock_api();
    Block prefix;
    for (int32_t i = 0; i < c.n_past; ++i) {
        prefix.token.push_back(i % 7);
        prefix.pos.push_back(i);
        prefix.output.push_back(0);
        prefix.sequences.push_back(up_to(c.n_sequences));
    }
    if (c.n_past > 0) {
        CHECK_EQ(api.llama_decode(llama.context(), BatchView(prefix, nullptr).get()), 0);
    }
    std::vector<float> embd;
    for (size_t row = 0; row < block.n_rows(); ++row) {
        const std::vector<float> values =
            block.mask[row] < 0 ? llama.embedding_row(block.token[row]) : mask_embedding(llama, block.mask[row]);
        embd.insert(embd.end(), values.begin(), values.end());
    }
    CHECK_EQ(api.llama_decode(llama.context(), BatchView(block, embd.data()).get()), 0);
    CHECK_EQ(llama.violations, std::vector<std::string>());
    CHECK_EQ(llama.n_odd_masks, size_t{0});

    std::map<size_t, int32_t> row_of_cell;
    for (size_t row = 0; row < llama.rows.size(); ++row) {
        row_of_cell[llama.rows[row].cell] = static_cast<int32_t>(row);
    }
    std::vector<std::set<int32_t>> seen(block.n_rows());
    for (size_t row = 0; row < llama.rows.size(); ++row) {
        int32_t n_prefix = 0;
        for (const size_t cell : llama.rows[row].visible) {
            if (row_of_cell.count(cell) != 0) {
                seen[row].insert(row_of_cell[cell]);
            } else {
                ++n_prefix;
            }
        }
        CHECK_EQ(n_prefix, c.n_past);
    }
    return seen;
}

void check_case(const Case & c) {
    Block block = c.layout();
    CHECK_EQ(block.n_again, static_cast<int32_t>(c.pending.size()) - 1);
    CHECK_EQ(block.n_sequences, count_leaves(c.tree, c.masks_of_node));
    const int32_t root_pos = c.n_past + block.n_again;

    // Each row is one thing, at its position.
    std::vector<int> n_owners(block.n_rows(), 0);
    for (int32_t i = 0; i < block.n_again; ++i) {
        ++n_owners[i];
        CHECK_EQ(block.token[i], c.pending[i]);
        CHECK_EQ(block.mask[i], -1);
        CHECK_EQ(block.pos[i], c.n_past + i);
        CHECK_EQ(block.output[i], int8_t{0}); // their choices are committed already
    }
    bool has_masks = false;
    for (size_t node = 0; node < c.tree.size(); ++node) {
        const int32_t row = block.row_of_node[node];
        ++n_owners[row];
        CHECK_EQ(block.token[row], c.tree.token[node]);
        CHECK_EQ(block.mask[row], -1);
        CHECK_EQ(block.pos[row], root_pos + c.tree.depth[node]);
        CHECK_EQ(block.output[row], int8_t{1});
        CHECK_EQ(block.row_of_mask[node] >= 0, c.masks_of_node[node] > 0);
        for (int32_t i = 0; i < c.masks_of_node[node]; ++i) {
            const int32_t mask_row = block.row_of_mask[node] + i;
            has_masks = true;
            ++n_owners[mask_row];
            CHECK_EQ(block.token[mask_row], Block::mask_token);
            CHECK_EQ(block.mask[mask_row], i);
            CHECK_EQ(block.pos[mask_row], root_pos + c.tree.depth[node] + 1 + i);
            CHECK_EQ(block.output[mask_row], int8_t{1});
        }
    }
    CHECK_EQ(block.has_masks(), has_masks);
    CHECK_EQ(n_owners, std::vector<int>(block.n_rows(), 1));

    // The spine follows the root row by row, and is what sequence 0 holds.
    CHECK_EQ(block.spine, c.tree.spine());
    std::set<int32_t> rows_of_0;
    for (size_t i = 0; i < block.spine.size(); ++i) {
        CHECK_EQ(block.row_of_node[block.spine[i]], block.n_again + static_cast<int32_t>(i));
        rows_of_0.insert(block.row_of_node[block.spine[i]]);
    }
    for (size_t node = 0; node < c.tree.size(); ++node) {
        const Ids & ids = block.sequences[block.row_of_node[node]];
        CHECK_EQ(std::count(ids.begin(), ids.end(), 0) == 1, rows_of_0.count(block.row_of_node[node]) == 1);
    }
    // What is committed whatever happens carries every sequence.
    for (int32_t row = 0; row <= block.n_again; ++row) {
        CHECK_EQ(block.sequences[row], up_to(c.n_sequences));
    }

    const std::vector<std::set<int32_t>> seen = visible_in_mock(c, block);
    for (int32_t row = 0; row < static_cast<int32_t>(block.n_rows()); ++row) {
        const std::set<int32_t> expected = visible_by_definition(c, block, row);
        const Scope scope("row " + std::to_string(row));
        CHECK_EQ(Ids(seen[row].begin(), seen[row].end()), Ids(expected.begin(), expected.end()));
    }
}

void random_blocks() {
    std::mt19937 rng(1);
    for (int round = 0; round < 400; ++round) {
        const Scope scope("round " + std::to_string(round));
        check_case(random_case(rng));
    }
}

// Root 9 after two tokens to decode again; children 5 (likeliest) and 6; 7 under 5; one mask each.
void by_hand() {
    Case c;
    c.n_past = 10;
    c.pending = {3, 4, 9};
    c.tree = DraftTree(9);
    c.tree.add(0, 6, -2.0f);
    c.tree.add(0, 5, -1.0f);
    c.tree.add(2, 7, -1.0f);
    c.masks_of_node = {1, 1, 1, 1};
    c.n_sequences = 5;
    const Block block = c.layout();
    CHECK_EQ(block.token, (Ids{3, 4, 9, 5, 7, 6, -1, -1, -1, -1}));
    CHECK_EQ(block.pos, (Ids{10, 11, 12, 13, 14, 13, 15, 13, 14, 14}));
    CHECK_EQ(block.spine, (Ids{0, 2, 3}));
    CHECK_EQ(block.row_of_node, (Ids{2, 5, 3, 4}));
    CHECK_EQ(block.row_of_mask, (Ids{7, 8, 9, 6}));
    CHECK_EQ(block.n_sequences, 4);
    const std::vector<Ids> sequences{
        {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}, {0, 3}, {0}, {2}, {0}, {1}, {2}, {3}};
    CHECK_EQ(block.sequences, sequences);
    check_case(c);
}

void root_alone() {
    Case c;
    c.n_past = 4;
    c.pending = {9};
    c.tree = DraftTree(9);
    c.masks_of_node = {0};
    const Block block = c.layout();
    CHECK_EQ(block.token, (Ids{9}));
    CHECK_EQ(block.pos, (Ids{4}));
    CHECK_EQ(block.n_sequences, 1);
    CHECK(!block.has_masks());
    check_case(c);
    c.masks_of_node = {4};
    check_case(c);
    CHECK_EQ(c.layout().pos, (Ids{4, 5, 6, 7, 8}));
}

void leaves() {
    DraftTree tree(1);
    tree.add(0, 2, -1.0f);
    tree.add(1, 3, -1.0f);
    tree.add(1, 4, -1.0f);
    CHECK_EQ(count_leaves(tree, {0, 0, 0, 0}), 2);
    CHECK_EQ(count_leaves(tree, {1, 0, 0, 0}), 3);
    CHECK_EQ(count_leaves(tree, {3, 3, 3, 3}), 4);
    CHECK_EQ(count_leaves(tree, {0, 0, 2, 0}), 2);
    CHECK_EQ(count_leaves(DraftTree(1), {0}), 1);
}

// 256 leaves, the most that llama.cpp takes.
void widest() {
    Case c;
    c.n_past = 3;
    c.pending = {9};
    c.tree = DraftTree(9);
    for (int32_t i = 0; i < 255; ++i) {
        c.tree.add(0, i + 1, -0.01f * static_cast<float>(i));
    }
    c.masks_of_node.assign(256, 1);
    c.n_sequences = 256;
    Block block = c.layout();
    CHECK_EQ(block.n_sequences, 256);
    CHECK_EQ(block.n_rows(), size_t{512});
    CHECK_EQ(block.sequences[0].size(), size_t{256});
    std::set<int32_t> ids_of_masks;
    for (size_t row = 256; row < 512; ++row) {
        ids_of_masks.insert(block.sequences[row].begin(), block.sequences[row].end());
    }
    CHECK_EQ(ids_of_masks.size(), size_t{256});
}

void batch_view() {
    Case c;
    c.n_past = 2;
    c.pending = {8, 9};
    c.tree = DraftTree(9);
    c.tree.add(0, 5, -1.0f);
    c.masks_of_node = {0, 0};
    c.n_sequences = 2;
    Block block = c.layout();
    const BatchView view(block, nullptr);
    const llama_batch batch = view.get();
    CHECK_EQ(batch.n_tokens, 3);
    CHECK(batch.embd == nullptr);
    CHECK_EQ(Ids(batch.token, batch.token + 3), (Ids{8, 9, 5}));
    CHECK_EQ(Ids(batch.pos, batch.pos + 3), (Ids{2, 3, 4}));
    CHECK_EQ(Ids(batch.n_seq_id, batch.n_seq_id + 3), (Ids{2, 2, 1}));
    CHECK_EQ(Ids(batch.seq_id[0], batch.seq_id[0] + 2), (Ids{0, 1}));
    CHECK_EQ(batch.seq_id[2][0], 0);
    CHECK_EQ(std::vector<int8_t>(batch.logits, batch.logits + 3), (std::vector<int8_t>{0, 1, 1}));
    float embd[3] = {};
    const BatchView with_embd(block, embd);
    CHECK(with_embd.get().token == nullptr && with_embd.get().embd == embd);
}

} // namespace

int main() {
    run("by hand", by_hand);
    run("root alone", root_alone);
    run("leaves", leaves);
    run("random blocks", random_blocks);
    run("widest", widest);
    run("batch view", batch_view);
    return finish();
}
