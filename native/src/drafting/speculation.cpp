#include "drafting/speculation.h"

#include "error.h"

#include <algorithm>
#include <cmath>

namespace mp {

void Speculation::check(int32_t n_vocab) const {
    if (tree == MP_TREE_NONE) {
        return;
    }
    if (n_masks == 0 && !is_mixed()) {
        throw Error(MP_ERROR_ARGUMENT, "a tree of mask guesses needs at least one mask per node");
    }
    if (block < rows_per_node()) {
        throw Error(MP_ERROR_ARGUMENT,
                    "a block of " + std::to_string(block) + " rows is too small for a root and its masks");
    }
    for (const int32_t width : widths) {
        if (width < 1 || width > n_vocab) {
            throw Error(MP_ERROR_ARGUMENT, "a tree cannot have " + std::to_string(width) + " nodes at a depth");
        }
    }
    if (!(update >= 0.0f && update <= 1.0f)) {
        throw Error(MP_ERROR_ARGUMENT, "update must be in 0..1");
    }
    if (!std::all_of(masks.begin(), masks.end(), [](float x) { return std::isfinite(x); })) {
        throw Error(MP_ERROR_ARGUMENT, "a mask embedding holds a value that is not finite");
    }
    // Beyond, sums and ratios of costs are no numbers any more.
    if (!std::all_of(cost.begin(), cost.end(), [](float x) { return x >= 1e-9f && x <= 1e9f; })) {
        throw Error(MP_ERROR_ARGUMENT, "the cost of a pass must be positive and finite, in 1e-9..1e9");
    }
    if (is_mixed() && cost.empty()) {
        throw Error(MP_ERROR_ARGUMENT, "a mixed tree needs the cost of passes");
    }
}

} // namespace mp
