// A draft tree and its masks laid out as the rows of one llama_decode: which token or mask each row
// holds, its position, its sequence ids, and whether its logits are read. Knows nothing of embeddings,
// logits or the KV cache's contents.
//
// Visibility without a custom attention mask: in a unified KV cache a row sees the cells that carry the
// row's first sequence id at positions not later than its own. So every leaf of the block gets a sequence
// id, and every row carries the ids of all leaves below it. Committed cells carry every id in use.
#pragma once

#include "drafting/tree.h"
#include "llama_api.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace mp {

// Rows, in order: accepted tokens that are decoded again, the root, the rest of the spine, the other
// drafted nodes, the masks. The spine comes first so that its cells, when it is accepted, already lie in
// position order.
struct Block {
    static constexpr int32_t mask_token = -1;

    std::vector<int32_t> token;                  // [rows], mask_token for masks
    std::vector<int32_t> mask;                   // [rows], which mask of its node (0-based), -1 for tokens
    std::vector<int32_t> pos;                    // [rows]
    std::vector<int8_t> output;                  // [rows]
    std::vector<std::vector<int32_t>> sequences; // [rows], sequence 0 is the leaf below the end of the spine
    std::vector<int32_t> row_of_node;            // [nodes]
    std::vector<int32_t> row_of_mask;            // [nodes], the node's first mask, -1 if it has none
    std::vector<int32_t> spine;                  // nodes from the root on, in rows that follow each other
    int32_t n_again = 0;                         // rows before the root
    int32_t n_sequences = 0;                     // leaves

    size_t n_rows() const { return token.size(); }
    bool has_masks() const {
        return std::any_of(mask.begin(), mask.end(), [](int32_t index) { return index >= 0; });
    }
    // Rows behind the root: drafted nodes or masks.
    bool has_drafts() const { return n_rows() > static_cast<size_t>(n_again) + 1; }
    // Appends the rows of another, with first_id added to their sequence ids.
    void append(const Block & other, int32_t first_id);
    // Appends a row and returns its index. mask_index is -1 for a token's row.
    int32_t add_row(int32_t row_token, int32_t row_pos, bool is_output, std::vector<int32_t> row_sequences,
                    int32_t mask_index = -1);
    // Appends rows to a chain until it has so many: nobody looks at them, and they are taken back with its drafts.
    void fill(size_t n);
};

// The ids 0..n-1.
std::vector<int32_t> first_sequences(int32_t n);

// pending: committed tokens that are not in the KV cache, the last of which is the tree's root.
// masks_of_node[i]: how many masks node i carries. n_past: tokens in the KV cache. n_committed_sequences:
// how many sequence ids committed cells carry (at least as many as the block has leaves).
Block layout_block(const std::vector<int32_t> & pending, const DraftTree & tree,
                   const std::vector<int32_t> & masks_of_node, int32_t n_past, int32_t n_committed_sequences);

// A piece of a prompt behind the n_past tokens in the KV cache: a block without drafts, whose last row is the root.
// with_logits: of that row; no other has any.
Block layout_prompt(const std::vector<int32_t> & tokens, int32_t n_past, int32_t n_committed_sequences,
                    bool with_logits);

// How many leaves a tree with these masks has.
int32_t count_leaves(const DraftTree & tree, const std::vector<int32_t> & masks_of_node);

// The llama_batch of a block; borrows block and embeddings and must not outlive them.
class BatchView {
public:
    // embd: [rows, n_embd_inp], or null for a batch of token ids (no masks).
    BatchView(Block & block, float * embd);
    llama_batch get() const { return batch_; }

private:
    std::vector<int32_t> pos_; // [4, rows], of embedding rows
    std::vector<int32_t> n_seq_id_;
    std::vector<int32_t *> seq_id_;
    llama_batch batch_;
};

} // namespace mp
