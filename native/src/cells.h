// The cells of a context's memory and whose they are. One text may have all of them; or several lanes share them, and
// then each has a range of sequence ids of its own.
//
// Rows see their lane's cells in the order in which they lie, and sums of floats depend on it. So between calls shared
// cells in use follow each other without holes, each lane's in order of position: what a lane gives up is left to a
// sequence that nobody decodes, until the cells are packed anew. Only the last cells of all can be freed at once.
//
// Where there is a recurrent state too, a lane has one sequence id, and so many states the context has. What is left
// behind then bears an id that the context does not have: llama.cpp keeps cells under such an id, but no state, which
// would be the lane's own.
#pragma once

#include "context.h"

#include <cstddef>
#include <cstdint>

namespace mp {

class Cells {
public:
    // For one text.
    explicit Cells(const Context & context) : context_(context) {}
    // For so many lanes with so many sequence ids each. Throws Error (MP_ERROR_ARGUMENT) if the context has no such ids
    // or no snapshots of its recurrent states.
    Cells(const Context & context, size_t n_lanes, size_t n_ids);

    const Context & context() const { return context_; }
    bool are_shared() const { return trash_ >= 0; }
    // The first sequence id of a lane, and how many it has.
    int32_t first_id(size_t lane) const { return static_cast<int32_t>(lane * n_ids_); }
    size_t n_ids() const { return are_shared() ? n_ids_ : context_.n_seq_max(); }
    // The id of a row that is nobody's; none where there is a recurrent state.
    int32_t spare_id() const { return trash_ + 1; }

    // Of shared cells: how many are in use, those left behind among them, and how many are not.
    size_t n_used() const { return n_used_; }
    size_t n_free() const { return context_.n_ctx() - n_used_; }
    void add_used(size_t n) { n_used_ += n; }
    void free_last(size_t n) { n_used_ -= n; }

    // Takes a sequence (-1: every one) off its cells from first_pos on. False if the memory cannot be cut.
    bool cut(int32_t sequence, size_t first_pos) const {
        return context_.cut_cells(sequence, static_cast<int32_t>(first_pos));
    }
    // Leaves a sequence's cells from first_pos on to nobody, so that their places stay taken.
    void leave(int32_t sequence, size_t first_pos) const {
        context_.share_cells(sequence, trash_, static_cast<int32_t>(first_pos), -1);
    }
    // Empties the memory, whoever has cells in it.
    void clear() {
        context_.clear_cells();
        n_used_ = 0;
    }

private:
    Context context_;
    size_t n_ids_ = 0;
    int32_t trash_ = -1; // the sequence of cells that were left behind; -1: one text has all cells
    size_t n_used_ = 0;
};

} // namespace mp
