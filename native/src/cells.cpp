#include "cells.h"

#include "error.h"

#include <string>

namespace mp {

Cells::Cells(const Context & context, size_t n_lanes, size_t n_ids)
    : context_(context), n_ids_(n_ids), trash_(static_cast<int32_t>(n_lanes * n_ids)) {
    const bool has_states = context.rewind() != Rewind::cells;
    if (context.rewind() == Rewind::copies) {
        throw Error(MP_ERROR_ARGUMENT, "a memory with a recurrent state and no snapshots takes one text at a time");
    }
    if (has_states && (n_ids != 1 || n_lanes != context.n_seq_max())) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(n_lanes) + " lanes of " + std::to_string(n_ids) +
                                           " sequences are not the " + std::to_string(context.n_seq_max()) +
                                           " recurrent states of this context");
    }
    const size_t n_needed = n_lanes * n_ids + (has_states ? 0 : 2);
    if (n_ids < 1 || n_needed > context.n_seq_max()) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(n_lanes) + " lanes of " + std::to_string(n_ids) +
                                           " sequences need " + std::to_string(n_needed) + ", and this context has " +
                                           std::to_string(context.n_seq_max()));
    }
}

} // namespace mp
