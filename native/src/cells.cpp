#include "cells.h"

#include "error.h"

#include <string>

namespace mp {

Cells::Cells(const Context & context, size_t n_lanes, size_t n_ids)
    : context_(context), n_ids_(n_ids), trash_(static_cast<int32_t>(n_lanes * n_ids)) {
    if (context.rewind() != Rewind::cells) {
        throw Error(MP_ERROR_ARGUMENT, "a memory with a recurrent state takes one text at a time");
    }
    const size_t n_needed = n_lanes * n_ids + 2;
    if (n_ids < 1 || n_needed > context.n_seq_max()) {
        throw Error(MP_ERROR_ARGUMENT, std::to_string(n_lanes) + " lanes of " + std::to_string(n_ids) +
                                           " sequences need " + std::to_string(n_needed) + ", and this context has " +
                                           std::to_string(context.n_seq_max()));
    }
}

} // namespace mp
