// What a fuzz target has: the bytes of one input, read as numbers. A target says with CHECK what must hold; libFuzzer,
// or driver.cpp without it, makes the inputs.
#pragma once

#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace mp::test {

// Past its end the input goes on with zeros.
class Input {
public:
    Input(const uint8_t * data, size_t n) : data_(data), left_(n), last_(n == 0 ? 0 : data[n - 1]) {}

    bool done() const { return left_ == 0; }
    // The last byte, which is read in its turn too.
    uint8_t last() const { return last_; }
    uint8_t byte() {
        if (left_ == 0) {
            return 0;
        }
        --left_;
        return *data_++;
    }
    bool coin() { return (byte() & 1) != 0; }
    // One time in n; never past the end.
    bool rarely(int32_t n) { return byte() % n == n - 1; }
    uint32_t bits() {
        uint32_t value = 0;
        for (int i = 0; i < 4; ++i) {
            value = value << 8 | byte();
        }
        return value;
    }
    // 0..n-1.
    int32_t below(int32_t n) { return n <= 256 ? byte() % n : static_cast<int32_t>(bits() % static_cast<uint32_t>(n)); }
    // Mostly small, sometimes any.
    int64_t number() {
        const int32_t kind = below(8);
        const int64_t value = kind < 6 ? below(64) : static_cast<int32_t>(bits());
        return kind == 7 ? value * INT32_MAX : value;
    }
    // Any float: NaN, infinities and denormals too.
    float any_float() {
        if (coin()) {
            const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f, 1e-40f, 0.0f, -0.0f};
            return odd[below(8)];
        }
        const uint32_t value = bits();
        float x;
        std::memcpy(&x, &value, sizeof x);
        return x;
    }
    // From -8 to 8 in steps, or any.
    float some_float() { return rarely(16) ? any_float() : static_cast<float>(below(256) - 128) / 16.0f; }
    std::vector<int32_t> tokens(int32_t n, int32_t n_vocab) {
        std::vector<int32_t> ids(n);
        for (int32_t & id : ids) {
            id = below(n_vocab);
        }
        return ids;
    }

private:
    const uint8_t * data_;
    size_t left_;
    uint8_t last_;
};

} // namespace mp::test

// The target of a program: one per file. entry.cpp hands it to the engine.
void fuzz_begin();
void fuzz_one(mp::test::Input & in);
