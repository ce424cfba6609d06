// How a generation drafts: the settings, and which of them are possible at all. What they need of a context and of
// embeddings is the session's to ask.
#pragma once

#include "maskprobe.h"

#include <cstdint>
#include <vector>

namespace mp {

struct Speculation {
    mp_tree tree = MP_TREE_NONE;
    int32_t n_masks = 0;         // masks per node, k
    std::vector<int32_t> widths; // nodes at each depth of a static tree
    int32_t block = 1;           // most rows of root, drafted nodes and masks
    std::vector<float> cost;     // what a pass of 1.. rows costs, for a mixed tree
    float change = 0.0f;         // what a pass costs more after one of another number of rows
    bool refine = false;         // correct the costs by what passes take; they are in ms then
    int32_t sources = 0;         // MP_SOURCE_* that a mixed tree asks beside the masks, or-ed
    bool prune = true;           // a candidate equal to its parent is replaced by the next best
    float update = 0.0f;         // lambda of [ESP, eq. 5]
    std::vector<float> masks;    // start values, [n_masks, n_embd]
    mp_guide guide = nullptr;    // the keeper of a grammar that the text follows; null: there is none
    void * guide_data = nullptr;

    bool is_mixed() const { return tree == MP_TREE_MIXED; }
    // The fewest rows that a node takes: it carries all masks, unless the tree is mixed.
    int32_t rows_per_node() const { return is_mixed() ? 1 : 1 + n_masks; }
    // Throws Error (MP_ERROR_ARGUMENT) for numbers that are out of range or do not fit each other.
    void check(int32_t n_vocab) const;
};

} // namespace mp
