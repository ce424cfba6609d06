// Products of quantized weights and a few rows of activations, each block of weights unpacked once for all rows.
// Knows block layouts and instruction sets; no llama.cpp header, no threads, no memory of its own. Every result has
// the bits of ggml's one-row kernel: the integer sums are exact, and floats are added in its order.
//
// A product in three steps: quantize each row as ggml does (the caller has ggml's function for it), pack the rows,
// multiply ranges of columns. "Columns" are rows of the weight matrix, which are columns of the result.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mp::kernels {

enum class Weights {
    q4_0,
    q4_0_repacked,
    q4_1,
    q5_0,
    q8_0,
    q8_0_repacked,
    q4_k,
    q4_k_repacked,
    q6_k,
    q6_k_repacked,
    f16,
    f32
};
constexpr int n_weights = 12;

// What ggml turns a row of activations into before it multiplies.
enum class Activations { q8_0, q8_1, q8_k, f16, f32 };

// In ascending order of what they need, x86's and ARM's.
enum class Instructions { none, avx2, avx2_vnni, avx512_vnni, neon_dotprod, neon_i8mm };

struct Kernel {
    Activations activations;
    int k_multiple; // elements of a row
    int n_multiple; // columns of a matrix; ranges of multiply begin at multiples of range_multiple
    int range_multiple;
    int fewest_rows; // below, ggml's own kernel is not slower
    // Bytes that n rows of k elements take when packed; packed memory is aligned to 64 bytes.
    size_t (*packed_bytes)(int64_t k, int n_rows);
    // Packs elements [first, last) of one quantized row as row-th of n_rows; multiples of k_multiple. Rows share cache
    // lines, ranges hardly: threads take ranges.
    void (*pack)(const void * quantized, int64_t k, int64_t first, int64_t last, int row, int n_rows, void * packed);
    // y[row * stride + column] for columns [first, last) of the weights. Different ranges may run at the same time.
    void (*multiply)(const void * weights, int64_t k, int64_t first, int64_t last, const void * packed, int n_rows,
                     float * y, size_t stride);
};

// One head's keys and values as half floats; strides in elements.
struct HeadCache {
    const uint16_t * keys;
    size_t key_stride;
    const uint16_t * values;
    size_t value_stride;
    int64_t n_keys;
};

constexpr int most_queries = 8;

// Attention of n queries [n, size] (half floats, at most most_queries) over a head's cache. masks: a row of
// half floats for each query, -infinity hides a key; nullptr: all count. out: where each query's result goes.
using Attend = void (*)(const HeadCache & cache, const uint16_t * queries, const uint16_t * const * masks, int n,
                        float scale, float * const * out);

// For heads of that many elements, nullptr if there is none; wide_floats as for find.
Attend find_attention(int head_size, Instructions instructions, bool wide_floats);

// What this processor and its operating system can do.
Instructions processor_instructions(); // the best of them
bool processor_has(Instructions instructions);
const char * name_of(Instructions instructions); // "" for none
const char * name_of(Weights weights, bool fused = false);

// The kernel for weights, nullptr if there is none. wide_floats: the floats of F16 and F32 are summed in the order of
// ggml built for AVX-512 (16 lanes), not of ggml built for AVX2 (8 lanes). fused: of two kernels for the same weights,
// the one for a ggml whose compiler made one operation of a multiplication and an addition that its source leaves open;
// nullptr where it leaves nothing open.
const Kernel * find(Weights weights, Instructions instructions, bool wide_floats, bool fused = false);

// Tables of the instruction sets, indexed by Weights; an entry without multiply is no kernel.
extern const Kernel avx2_kernels[n_weights];
extern const Kernel avx2_vnni_kernels[n_weights];
extern const Kernel avx512_kernels[n_weights];
Attend avx512_attention(int head_size);
const Kernel & neon_dotprod_kernel(Weights weights, bool fused);
const Kernel & neon_i8mm_kernel(Weights weights, bool fused);

} // namespace mp::kernels
