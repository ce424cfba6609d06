#include "block.h"

#include <algorithm>
#include <numeric>

namespace mp {

namespace {

// Nodes that have no drafted child or carry masks of their own each end in a leaf.
std::vector<int32_t> find_leaf_nodes(const DraftTree & tree, const std::vector<int32_t> & masks_of_node) {
    std::vector<bool> has_child(tree.size(), false);
    for (size_t i = 1; i < tree.size(); ++i) {
        has_child[tree.parent[i]] = true;
    }
    std::vector<int32_t> nodes;
    for (size_t i = 0; i < tree.size(); ++i) {
        if (masks_of_node[i] > 0 || !has_child[i]) {
            nodes.push_back(static_cast<int32_t>(i));
        }
    }
    return nodes;
}

// The sequence ids below each node, [nodes]: one for each leaf.
std::vector<std::vector<int32_t>> find_sequences(const DraftTree & tree, const std::vector<int32_t> & leaves) {
    std::vector<std::vector<int32_t>> below(tree.size());
    for (size_t s = 0; s < leaves.size(); ++s) {
        for (int32_t node = leaves[s]; node >= 0; node = tree.parent[node]) {
            below[node].push_back(static_cast<int32_t>(s));
        }
    }
    return below;
}

} // namespace

int32_t Block::add_row(int32_t row_token, int32_t row_pos, bool is_output, std::vector<int32_t> row_sequences,
                       int32_t mask_index) {
    token.push_back(row_token);
    mask.push_back(mask_index);
    pos.push_back(row_pos);
    output.push_back(is_output ? 1 : 0);
    sequences.push_back(std::move(row_sequences));
    return static_cast<int32_t>(n_rows()) - 1;
}

void Block::fill(size_t n) {
    while (n_rows() < n) {
        add_row(token[n_again], pos.back() + 1, false, sequences.back());
    }
}

void Block::append(const Block & other, int32_t first_id) {
    for (size_t row = 0; row < other.n_rows(); ++row) {
        std::vector<int32_t> ids = other.sequences[row];
        std::for_each(ids.begin(), ids.end(), [first_id](int32_t & id) { id += first_id; });
        add_row(other.token[row], other.pos[row], other.output[row] != 0, std::move(ids), other.mask[row]);
    }
}

std::vector<int32_t> first_sequences(int32_t n) {
    std::vector<int32_t> ids(n);
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
}

Block layout_prompt(const std::vector<int32_t> & tokens, int32_t n_past, int32_t n_committed_sequences,
                    bool with_logits) {
    Block block;
    block.n_again = static_cast<int32_t>(tokens.size()) - 1;
    block.n_sequences = 1;
    for (int32_t i = 0; i <= block.n_again; ++i) {
        block.add_row(tokens[i], n_past + i, with_logits && i == block.n_again, first_sequences(n_committed_sequences));
    }
    return block;
}

int32_t count_leaves(const DraftTree & tree, const std::vector<int32_t> & masks_of_node) {
    return static_cast<int32_t>(find_leaf_nodes(tree, masks_of_node).size());
}

Block layout_block(const std::vector<int32_t> & pending, const DraftTree & tree,
                   const std::vector<int32_t> & masks_of_node, int32_t n_past, int32_t n_committed_sequences) {
    Block block;
    block.spine = tree.spine();

    // The spine's end comes first and gets sequence id 0.
    std::vector<int32_t> leaves = find_leaf_nodes(tree, masks_of_node);
    std::stable_partition(leaves.begin(), leaves.end(), [&](int32_t node) { return node == block.spine.back(); });
    block.n_sequences = static_cast<int32_t>(leaves.size());
    std::vector<std::vector<int32_t>> below = find_sequences(tree, leaves);
    // Rows that are committed whatever happens carry the ids of all committed cells.
    const std::vector<int32_t> committed = first_sequences(std::max(n_committed_sequences, block.n_sequences));
    below[0] = committed;

    block.n_again = static_cast<int32_t>(pending.size()) - 1;
    for (int32_t i = 0; i < block.n_again; ++i) {
        block.add_row(pending[i], n_past + i, false, committed);
    }
    const int32_t root_pos = n_past + block.n_again;
    block.row_of_node.assign(tree.size(), -1);
    block.row_of_mask.assign(tree.size(), -1);
    const auto add_node = [&](int32_t node) {
        block.row_of_node[node] = block.add_row(tree.token[node], root_pos + tree.depth[node], true, below[node]);
    };
    for (const int32_t node : block.spine) {
        add_node(node);
    }
    for (size_t node = 1; node < tree.size(); ++node) {
        if (block.row_of_node[node] < 0) {
            add_node(static_cast<int32_t>(node));
        }
    }
    for (size_t s = 0; s < leaves.size(); ++s) {
        const int32_t node = leaves[s];
        for (int32_t i = 0; i < masks_of_node[node]; ++i) {
            const int32_t pos = root_pos + tree.depth[node] + 1 + i;
            const int32_t row = block.add_row(Block::mask_token, pos, true, {static_cast<int32_t>(s)}, i);
            block.row_of_mask[node] = i == 0 ? row : block.row_of_mask[node];
        }
    }
    return block;
}

BatchView::BatchView(Block & block, float * embd) {
    for (std::vector<int32_t> & ids : block.sequences) {
        n_seq_id_.push_back(static_cast<int32_t>(ids.size()));
        seq_id_.push_back(ids.data());
    }
    batch_.n_tokens = static_cast<int32_t>(block.n_rows());
    batch_.token = embd == nullptr ? block.token.data() : nullptr;
    batch_.embd = embd;
    batch_.pos = block.pos.data();
    if (embd != nullptr) {
        // Models with M-RoPE take four positions of an embedding row, section by section: text has the same three
        // times, then 0. Others read the first section.
        for (int section = 0; section < 3; ++section) {
            pos_.insert(pos_.end(), block.pos.begin(), block.pos.end());
        }
        pos_.resize(4 * block.n_rows(), 0);
        batch_.pos = pos_.data();
    }
    batch_.n_seq_id = n_seq_id_.data();
    batch_.seq_id = seq_id_.data();
    batch_.logits = block.output.data();
}

} // namespace mp
