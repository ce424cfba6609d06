// ggml's one-row arithmetic of F16, F32 and BF16, as built for AVX2 or, wide, for AVX-512.
#pragma once

#include "kernel_reference.h"

namespace mp::test {

inline float float_reference(bool half, bool wide, const char * w, const char * x, int64_t n_blocks) {
    const int lanes = wide ? 16 : 8;
    const auto value = [&](const char * from, int64_t i) {
        return half ? from_half(read<uint16_t>(from + 2 * i)) : read<float>(from + 4 * i);
    };
    float sums[4][16] = {};
    for (int64_t i = 0; i < n_blocks * 4 * lanes; ++i) {
        float & sum = sums[i / lanes % 4][i % lanes];
        sum = std::fmaf(value(w, i), value(x, i), sum);
    }
    float all[16];
    for (int i = 0; i < lanes; ++i) {
        all[i] = (sums[0][i] + sums[2][i]) + (sums[1][i] + sums[3][i]);
    }
    if (!wide) {
        const float pairs[2] = {(all[0] + all[4]) + (all[1] + all[5]), (all[2] + all[6]) + (all[3] + all[7])};
        return pairs[0] + pairs[1];
    }
    for (int n = 8; n >= 2; n /= 2) {
        for (int i = 0; i < n; ++i) {
            all[i] = all[i + n] + all[i];
        }
    }
    return all[0] + all[1];
}

inline float bf16_reference(bool wide, const char * w, const char * x, int64_t n_blocks) {
    const auto value = [](const char * from, int64_t i) {
        const uint32_t bits = static_cast<uint32_t>(read<uint16_t>(from + 2 * i)) << 16;
        return read<float>(reinterpret_cast<const char *>(&bits));
    };
    const int lanes = wide ? 16 : 8;
    float sums[4][16] = {};
    for (int64_t i = 0; i < 32 * n_blocks; ++i) {
        float & sum = sums[i % 32 / lanes][i % lanes];
        sum = std::fmaf(value(w, i), value(x, i), sum);
    }
    if (!wide) {
        Lanes8 all;
        for (int l = 0; l < 8; ++l) {
            all[l] = (sums[0][l] + sums[2][l]) + (sums[1][l] + sums[3][l]);
        }
        return sum_of(all);
    }
    for (float * part : {sums[0], sums[1]}) {
        for (int n = 8; n >= 1; n /= 2) {
            for (int i = 0; i < n; ++i) {
                part[i] = part[i + n] + part[i];
            }
        }
    }
    return static_cast<float>(static_cast<double>(sums[0][0]) + static_cast<double>(sums[1][0]));
}

} // namespace mp::test
