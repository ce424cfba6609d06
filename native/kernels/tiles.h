// How rows of activations are packed and how a kernel for up to so many rows serves any number: in tiles.
//
// Included once per instruction set, with MP_KERNEL_SET naming it: everything here lives in that set's namespace, and
// nothing of the standard library is called, so that no function built for one processor is linked into another's code.
#pragma once

#include "kernels.h"

#if defined(_MSC_VER)
#define MP_UNROLL
#define MP_INLINE __forceinline
#elif defined(MP_SANITIZED)
// A compiler takes many minutes for what is unrolled with a check at each step.
#define MP_UNROLL
#define MP_INLINE inline
#else
#if defined(__clang__)
#define MP_UNROLL _Pragma("unroll")
#else
#define MP_UNROLL _Pragma("GCC unroll 16")
#endif
#define MP_INLINE inline __attribute__((always_inline))
#endif

namespace mp::kernels::MP_KERNEL_SET {

constexpr size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

// A family of kernels is a struct Family with
//   Quantized, block            what one block of a quantized row is, and its elements
//   tile, columns               most rows that one call takes; columns that are computed together
//   packed_block_bytes(n)       bytes of one block of n packed rows
//   pack_block(q, row, n, out)  packs one block of one row among n
//   multiply<N>(weights, n_blocks, column, count, packed, y, stride)   count <= columns
template <class Family> struct Tiled {
    using Multiply = void (*)(const void *, int64_t, int64_t, int, const char *, float *, size_t);

    static constexpr int tile = Family::tile;

    static size_t tile_bytes(int64_t k, int n) {
        return whole_lines(static_cast<size_t>(k / Family::block) * Family::packed_block_bytes(n));
    }

    static size_t packed_bytes(int64_t k, int n_rows) {
        const int rest = n_rows % tile;
        return static_cast<size_t>(n_rows / tile) * tile_bytes(k, tile) + (rest > 0 ? tile_bytes(k, rest) : 0);
    }

    static int rows_of_tile(int first, int n_rows) { return n_rows - first < tile ? n_rows - first : tile; }

    static void pack(const void * quantized, int64_t k, int64_t first, int64_t last, int row, int n_rows,
                     void * packed) {
        const int first_row = row / tile * tile;
        const int n = rows_of_tile(first_row, n_rows);
        char * out = static_cast<char *>(packed) + static_cast<size_t>(row / tile) * tile_bytes(k, tile);
        const auto * blocks = static_cast<const typename Family::Quantized *>(quantized);
        for (int64_t b = first / Family::block; b < last / Family::block; ++b, blocks += Family::quantized_per_block) {
            Family::pack_block(blocks, row - first_row, n,
                               out + static_cast<size_t>(b) * Family::packed_block_bytes(n));
        }
    }

    template <int N> static constexpr Multiply for_rows(int n) {
        if constexpr (N == 1) {
            return n == 1 ? &Family::template multiply<1> : nullptr;
        } else {
            return n == N ? &Family::template multiply<N> : for_rows<N - 1>(n);
        }
    }

    static void multiply(const void * weights, int64_t k, int64_t first, int64_t last, const void * packed, int n_rows,
                         float * y, size_t stride) {
        const int64_t n_blocks = k / Family::block;
        const Multiply full = for_rows<tile>(tile);
        const Multiply rest = for_rows<tile>(n_rows % tile);
        for (int64_t column = first; column < last; column += Family::columns) {
            const int count = static_cast<int>(last - column < Family::columns ? last - column : Family::columns);
            const char * rows = static_cast<const char *>(packed);
            for (int row = 0; row < n_rows; row += tile, rows += tile_bytes(k, tile)) {
                (n_rows - row < tile ? rest : full)(weights, n_blocks, column, count, rows,
                                                    y + static_cast<size_t>(row) * stride, stride);
            }
        }
    }

    static constexpr Kernel kernel(Activations activations, int n_multiple, int fewest_rows) {
        return {activations,  Family::block, n_multiple, Family::columns, fewest_rows,
                packed_bytes, pack,          multiply,   nullptr};
    }

    // Batches: the family for the same weights, packed alike, in the order for batches.
    template <class Batches>
    static constexpr Kernel kernel_and(Activations activations, int n_multiple, int fewest_rows) {
        Kernel both = kernel(activations, n_multiple, fewest_rows);
        both.multiply_batches = Tiled<Batches>::multiply;
        return both;
    }
};

} // namespace mp::kernels::MP_KERNEL_SET
