// Texts that had to leave the cells, with all that the cells held of them, in memory: the latest ones, up to so many
// bytes. Knows tokens and bytes; how they leave cells and come back is KvCache's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

namespace mp {

struct ParkedText {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> state; // of KvCache::save

    size_t n_bytes() const { return state.size() + tokens.size() * sizeof(int32_t); }
};

class Parking {
public:
    // whole: a text is of no use to a prompt that does not begin with all of it, as a recurrent state cannot be cut.
    explicit Parking(bool whole = false) : whole_(whole) {}

    // From now on at most so many bytes; what is there and does not fit is forgotten, the oldest first.
    void allow(size_t n_bytes);
    bool is_allowed() const { return most_bytes_ > 0; }
    // In place of texts that it begins with; not if one begins with it.
    void put(ParkedText text);
    // Most tokens that a prompt can have of one of them: with which both begin.
    size_t most_common(const std::vector<int32_t> & prompt) const;
    // Takes that one out; there is one.
    ParkedText take(const std::vector<int32_t> & prompt);

    size_t size() const { return texts_.size(); }
    size_t n_bytes() const { return n_bytes_; }

private:
    size_t n_useful(const ParkedText & text, const std::vector<int32_t> & prompt) const;
    void shrink();

    bool whole_;
    std::list<ParkedText> texts_; // the latest first
    size_t n_bytes_ = 0;
    size_t most_bytes_ = 0;
};

// How many tokens two texts begin with in common.
size_t common_prefix(const std::vector<int32_t> & a, const std::vector<int32_t> & b);

} // namespace mp
