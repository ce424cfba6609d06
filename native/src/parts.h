// The parts that lanes have in one pass: how its rows are divided among them. Roots come first, then pieces of prompts,
// then drafts, whoever's they are, as far as they earn their cost. Knows numbers of rows; which lanes there are, and
// decoding, is Pool's.
//
// llama.cpp computes recurrent states of several texts at once only where each has as many rows as the others. So texts
// that are chains all get as many, those that draft less get rows that nobody looks at, and pieces of prompts are
// decoded by themselves.
#pragma once

#include "lane.h"

#include <algorithm>
#include <exception>
#include <vector>

namespace mp {

// What a pass came to for one lane.
struct Outcome {
    const mp_pass * pass = nullptr; // valid until the lane's next pass; without rows if the lane had to wait
    std::exception_ptr error;       // why it failed, null if it did not
};

struct Part {
    size_t i; // which lane of the pool
    Lane * lane;
    Outcome * outcome;
    bool goes_alone = false; // it is decoded by itself
    bool is_piece = false;   // it takes the next n_piece of its pending tokens; else all of them, and drafts
    size_t n_piece = 0;
    size_t first_row = 0; // in the batch
    bool is_out = false;  // it has failed

    // Of a catch clause: the lane's generation ends with what was thrown. None of its rows are in the memory, or they
    // are the last ones.
    void fail() {
        outcome->error = std::current_exception();
        lane->abandon(true);
        is_out = true;
    }
};
using Parts = std::vector<Part>;

inline void drop_failed(Parts & parts) {
    parts.erase(std::remove_if(parts.begin(), parts.end(), [](const Part & part) { return part.is_out; }), parts.end());
}

// Lays out the rows of all parts, the first ones first where there are more parts than rows: at most most_rows
// together. piece: rows that a pass with pieces of prompts should have. A part whose drafts fail is out.
void lay_out_rows(Parts & parts, size_t most_rows, size_t piece);

// Parts that are laid out, without those that have failed, in groups that one llama_decode takes: one of all, or for
// chains one of each number of rows, and those that go alone by themselves. None, with all failed, if memory runs out.
std::vector<Parts> group(Parts & parts);

// What a pass of these parts has cost, for each market that it was a pass of.
void observe_costs(const Parts & parts, size_t n_rows, double decode_ms);

} // namespace mp
