// Formats of 32 elements in ggml's CPU_REPACK layout of 8 columns side by side: the order of ggml_gemv_*_8x8_q8_0. A
// float lane per column takes up exact integer sums block by block.
#pragma once

#include "blocks.h"
#include "groups.h"
#include "lookup_blocks.h"

namespace mp::kernels::MP_KERNEL_SET {

// sum + the products of 32 elements of every column (0..Largest) and the same 32 activations.
template <int Largest = 15>
MP_INLINE Group::Ints dot32(Group::Ints sum, const Group::Ints * elements, const char * activations) {
#if defined(MP_AVX512_VNNI)
    MP_UNROLL for (int i = 0; i < 8; ++i) {
        sum = _mm512_dpbusd_epi32(sum, elements[i], Group::four_bytes(activations + 4 * i));
    }
    return sum;
#elif defined(MP_AVX_VNNI)
    MP_UNROLL for (int i = 0; i < 8; ++i) {
        sum = _mm256_dpbusd_avx_epi32(sum, elements[i], Group::four_bytes(activations + 4 * i));
    }
    return sum;
#else
    // As many sums of two products as fit 16 bits.
    constexpr int together = 8 * 2 * Largest * 127 <= 32767 ? 8 : 4;
    static_assert(together * 2 * Largest * 127 <= 32767);
    MP_UNROLL for (int first = 0; first < 8; first += together) {
        __m256i pairs = _mm256_maddubs_epi16(elements[first], Group::four_bytes(activations + 4 * first));
        MP_UNROLL for (int i = first + 1; i < first + together; ++i) {
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(elements[i], Group::four_bytes(activations + 4 * i)));
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return sum;
#endif
}

#if !defined(MP_AVX512_VNNI) && !defined(MP_AVX_VNNI)
// The same for signed elements, whose signs the activations take over.
MP_INLINE __m256i signed_dot32(__m256i sum, const __m256i * elements, const char * activations) {
    MP_UNROLL for (int i = 0; i < 8; ++i) {
        const __m256i signed_activations = _mm256_sign_epi8(Group::four_bytes(activations + 4 * i), elements[i]);
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(elements[i]), signed_activations);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return sum;
}
#endif

// A format: its block, its scales, and bytes for nibbles, which are at most largest and the elements plus offset. Where
// offset is 0, they are signed.
struct EightQ4_0 {
    using Block = BlockQ4_0x8;
    static constexpr int offset = 8;
    static constexpr int largest = 15;
    static MP_INLINE Group::Ints bytes(Group::Ints signed_nibbles) { return Group::flip(signed_nibbles); }
    static MP_INLINE Group::Floats scales(const Block & a, const Block & b) { return Group::halves(a.d, b.d); }
};

struct EightIQ4NL {
    using Block = BlockIQ4NLx8;
    static constexpr int offset = has_byte_dots ? 128 : 0; // pairs of products of such bytes do not fit 16 bits
    static constexpr int largest = 113 + offset;
    static constexpr Steps table = raised(uneven_steps, offset);
    static MP_INLINE Group::Ints bytes(Group::Ints indices) { return Group::look_up(table.values, indices); }
    static MP_INLINE Group::Floats scales(const Block & a, const Block & b) { return Group::halves(a.d, b.d); }
};

struct EightMXFP4 {
    using Block = BlockMXFP4x8;
    static constexpr int offset = 12;
    static constexpr int largest = 12 + offset;
    static constexpr Steps table = raised(float_steps, offset);
    static MP_INLINE Group::Ints bytes(Group::Ints indices) { return Group::look_up(table.values, indices); }
    static MP_INLINE Group::Floats scales(const Block & a, const Block & b) {
        uint64_t exponents[2];
        __builtin_memcpy(exponents, a.e, 8);
        __builtin_memcpy(exponents + 1, b.e, 8);
        return Group::powers(Group::bytes(exponents[0], exponents[1]));
    }
};

template <class Format> struct RepackedBlocks {
    using Quantized = BlockQ8_0;
    static constexpr int quantized_per_block = 1;
    static constexpr int block = 32;
    static constexpr int tile = Group::groups == 2 ? 16 : 4;
    static constexpr int columns = 8 * Group::groups;

    // n x 32 activations, n scales, n sums times -offset.
    static size_t packed_block_bytes(int n) { return static_cast<size_t>(n) * 40; }

    static void pack_block(const Quantized * q, int row, int n, char * out) {
        int32_t sum = 0;
        for (int i = 0; i < 32; ++i) {
            sum += q->qs[i];
        }
        __builtin_memcpy(out + 32 * row, q->qs, 32);
        reinterpret_cast<float *>(out + 32 * n)[row] = from_half(q->d);
        reinterpret_cast<int32_t *>(out + 36 * n)[row] = -Format::offset * sum;
    }

    template <int N>
    static void multiply(const void * weights, int64_t n_blocks, int64_t column, int count, const char * packed,
                         float * y, size_t stride) {
        const auto * a = static_cast<const typename Format::Block *>(weights) + column / 8 * n_blocks;
        const auto * b = count > 8 ? a + n_blocks : a;
        const auto * next = reinterpret_cast<const char *>(a + Group::groups * n_blocks);
        constexpr size_t step = Group::groups * sizeof(typename Format::Block);
        Group::Floats sums[N];
        MP_UNROLL for (int r = 0; r < N; ++r) { sums[r] = Group::zero_floats(); }
        for (int64_t i = 0; i < n_blocks; ++i, packed += packed_block_bytes(N)) {
            prefetch(next + static_cast<size_t>(i) * step, step);
            Group::Ints both[4];
            Group::elements16(a[i].qs, b[i].qs, both);
            Group::Ints elements[8];
            MP_UNROLL for (int e = 0; e < 4; ++e) {
                elements[e] = Format::bytes(Group::low_nibbles(both[e]));
                elements[4 + e] = Format::bytes(Group::high_nibbles(both[e]));
            }
            const Group::Floats d = Format::scales(a[i], b[i]);
            const float * scales = reinterpret_cast<const float *>(packed + 32 * N);
            const int32_t * starts = reinterpret_cast<const int32_t *>(packed + 36 * N);
            MP_UNROLL for (int r = 0; r < N; ++r) {
                const Group::Ints sum = products(Group::set1(starts[r]), elements, packed + 32 * r);
                sums[r] =
                    Group::multiply_add(Group::to_floats(sum), Group::multiply(d, Group::set1(scales[r])), sums[r]);
            }
        }
        MP_UNROLL for (int r = 0; r < N; ++r) {
            Group::store(y + static_cast<size_t>(r) * stride + column, sums[r], count > 8);
        }
    }

    static MP_INLINE Group::Ints products(Group::Ints start, const Group::Ints * elements, const char * row) {
#if defined(MP_AVX512_VNNI) || defined(MP_AVX_VNNI)
        return dot32(start, elements, row);
#else
        if constexpr (Format::offset == 0) {
            return signed_dot32(start, elements, row);
        } else {
            return dot32<Format::largest>(start, elements, row);
        }
#endif
    }
};

using RepackedQ4_0 = RepackedBlocks<EightQ4_0>;
using RepackedIQ4NL = RepackedBlocks<EightIQ4NL>;
using RepackedMXFP4 = RepackedBlocks<EightMXFP4>;

} // namespace mp::kernels::MP_KERNEL_SET
