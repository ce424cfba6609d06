#include "parking.h"

#include <algorithm>
#include <utility>

namespace mp {

size_t common_prefix(const std::vector<int32_t> & a, const std::vector<int32_t> & b) {
    const size_t n = std::min(a.size(), b.size());
    return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first -
                               a.begin());
}

void Parking::allow(size_t n_bytes) {
    most_bytes_ = n_bytes;
    shrink();
}

void Parking::put(ParkedText text) {
    if (text.n_bytes() > most_bytes_) {
        return;
    }
    for (auto one = texts_.begin(); one != texts_.end();) {
        const size_t n = common_prefix(one->tokens, text.tokens);
        if (n == text.tokens.size()) {
            texts_.splice(texts_.begin(), texts_, one); // it has all of it
            return;
        }
        if (n < one->tokens.size()) {
            ++one;
            continue;
        }
        n_bytes_ -= one->n_bytes();
        one = texts_.erase(one);
    }
    n_bytes_ += text.n_bytes();
    texts_.push_front(std::move(text));
    shrink();
}

size_t Parking::n_useful(const ParkedText & text, const std::vector<int32_t> & prompt) const {
    const size_t n = common_prefix(text.tokens, prompt);
    return whole_ && n < text.tokens.size() ? 0 : n;
}

size_t Parking::most_common(const std::vector<int32_t> & prompt) const {
    size_t most = 0;
    for (const ParkedText & text : texts_) {
        most = std::max(most, n_useful(text, prompt));
    }
    return most;
}

ParkedText Parking::take(const std::vector<int32_t> & prompt) {
    const auto best = std::max_element(texts_.begin(), texts_.end(), [&](const ParkedText & a, const ParkedText & b) {
        return n_useful(a, prompt) < n_useful(b, prompt);
    });
    ParkedText text = std::move(*best);
    n_bytes_ -= text.n_bytes();
    texts_.erase(best);
    return text;
}

void Parking::shrink() {
    while (n_bytes_ > most_bytes_) {
        n_bytes_ -= texts_.back().n_bytes();
        texts_.pop_back();
    }
}

} // namespace mp
