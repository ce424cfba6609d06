// Keepers of grammars that say anything at all. What they say hangs on the last byte of an input alone, so that inputs
// from before there were any mean what they meant.
#pragma once

#include "fuzz.h"
#include "maskprobe.h"

namespace mp::test {

struct AnyKeeper {
    uint32_t seed = 0; // 0: there is none
    int32_t n_vocab = 0;

    AnyKeeper(const Input & in, int32_t n) : seed(in.last() % 7 == 3 ? in.last() : 0), n_vocab(n) {}

    mp_guide guide() const { return seed == 0 ? nullptr : &ask; }
    bool knows(size_t depth) const { return seed != 0 && (seed + depth) % 5 != 0; }
    uint32_t word(size_t depth, size_t i) const {
        const auto hash = static_cast<uint32_t>((seed * 31 + depth) * 2654435761u + i * 40503u);
        const uint32_t bits = (hash ^ hash >> 15) * 2246822519u;
        return seed % 3 == 0 ? bits & bits >> 7 : bits;
    }
    // Whether the token may follow behind so many drafted ones.
    bool allows(size_t depth, int32_t token) const {
        return !knows(depth) || (word(depth, static_cast<size_t>(token) / 32) >> token % 32 & 1u) != 0;
    }

    static int ask(void * data, const int32_t *, size_t n, uint32_t * allowed, int32_t * forced) {
        const auto & keeper = *static_cast<const AnyKeeper *>(data);
        for (size_t i = 0; i < (static_cast<size_t>(keeper.n_vocab) + 31) / 32; ++i) {
            allowed[i] = keeper.word(n, i);
        }
        *forced = static_cast<int32_t>(keeper.word(n, 99) % static_cast<uint32_t>(keeper.n_vocab + 3)) - 2;
        return keeper.knows(n) ? 1 : 0;
    }
};

} // namespace mp::test
