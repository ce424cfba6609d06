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
    q5_1,
    q8_0,
    q8_0_repacked,
    q2_k,
    q2_k_repacked,
    q3_k,
    q4_k,
    q4_k_repacked,
    q5_k,
    q6_k,
    q6_k_repacked,
    iq4_nl,
    iq4_nl_repacked,
    iq4_xs,
    mxfp4,
    mxfp4_repacked,
    bf16,
    f16,
    f32
};
constexpr int n_weights = 23;

// What ggml turns a row of activations into before it multiplies.
enum class Activations { q8_0, q8_1, q8_k, bf16, f16, f32 };

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
    // The same in the order of ggml's kernel for whole batches of four rows; nullptr where that is its order for one.
    void (*multiply_batches)(const void * weights, int64_t k, int64_t first, int64_t last, const void * packed,
                             int n_rows, float * y, size_t stride);
};

// What the keys and values of a cache are made of.
enum class CacheType { f16, q8_0 };

// One head's keys and values; strides in bytes.
struct HeadCache {
    const void * keys;
    size_t key_stride;
    const void * values;
    size_t value_stride;
    int64_t n_keys;
};

constexpr int most_queries = 8;
constexpr uint16_t hidden = 0xfc00; // in a mask: -infinity
constexpr int largest_head = 512;

// Attention of some queries over a head's cache.
struct Attention {
    HeadCache cache;
    const void * queries;           // [n_queries, head size] of the cache's type
    int n_queries;                  // most_queries at most
    const uint16_t * const * masks; // a row of half floats for each query, -infinity hides a key; nullptr: all count
    float scale;                    // that scores are multiplied by
    float cap;                      // scores are cap * tanh(score); 0: as they are
    const float * sinks;            // a score for each query that takes its share of the weights; nullptr: none
    float * const * out;            // where each query's result goes, [head size]
};

using Attend = void (*)(const Attention & all);

// For heads of that many elements, nullptr if there is none; wide_floats as for find.
Attend find_attention(int head_size, CacheType type, Instructions instructions, bool wide_floats);

// What this processor and its operating system can do.
Instructions processor_instructions(); // the best of them
bool processor_has(Instructions instructions);
const char * name_of(Instructions instructions); // "" for none
const char * name_of(Weights weights, bool fused = false);

// The kernel for weights, nullptr if there is none. wide_floats: ggml was built for AVX-512, not for AVX2. BF16, F16
// and F32 are summed in lanes of 16 floats then, not of 8, and Q2_K is repacked, which it is not otherwise. fused: of
// two kernels for the same weights, the one for a ggml whose compiler made one operation of a multiplication and an
// addition that its source leaves open, or that was built for AVX-512's instruction for BF16; nullptr where there are
// no two.
const Kernel * find(Weights weights, Instructions instructions, bool wide_floats, bool fused = false);

// Tables of the instruction sets, indexed by Weights; an entry without multiply is no kernel.
extern const Kernel avx2_kernels[n_weights];
extern const Kernel avx2_vnni_kernels[n_weights];
extern const Kernel avx512_kernels[n_weights];
extern const Kernel avx512_bf16_kernel;
Attend avx2_attention(int head_size, CacheType type);
Attend avx2_vnni_attention(int head_size, CacheType type);
Attend avx512_attention(int head_size, CacheType type);
const Kernel & neon_dotprod_kernel(Weights weights, bool fused);
const Kernel & neon_i8mm_kernel(Weights weights, bool fused);

} // namespace mp::kernels
