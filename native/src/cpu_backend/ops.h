// What the operations that kernels compute have in common: the state of the way in, and where tensors live. What an
// operation takes is in the .cpp of each.
#pragma once

#include "cpu_backend/cpu_kernels.h"
#include "cpu_backend/ggml_api.h"

#include <atomic>
#include <cstdint>
#include <cstring>

namespace mp::cpu_kernels {

// All of it is set once by attach, but what is atomic. It outlives every graph, so it is never freed.
struct State {
    ggml::Api api;
    int32_t op_product = -1;
    int32_t op_experts = -1;
    int32_t op_attention = -1;
    ggml::BufferType * repack = nullptr;
    ggml::ExtraBufferType * stock = nullptr; // the context that repack had
    bool wide_floats = false;
    kernels::Instructions instructions = kernels::processor_instructions();
    Entry entries[most_entries] = {};
    size_t n_entries = 0;
    std::atomic<uint32_t> allowed{0};
    std::atomic<uint32_t> for_prompts{0};
    std::atomic<bool> use_by_default{false};
    std::atomic<int64_t> n_used[most_entries] = {};
};

// One operation: which kernel computes it (the index of the first allowed entry, or -1), in how much work memory, and
// how.
namespace product {
// Of activations, those of several texts together.
int64_t count_rows(const ggml::Tensor & op);
int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed);
size_t work_bytes(const State & s, const kernels::Kernel & kernel, const ggml::Tensor & op, int n_threads,
                  bool as_prompt);
void compute(const State & s, const kernels::Kernel & kernel, const ggml::ComputeParams & params, ggml::Tensor & op,
             bool as_prompt);
} // namespace product

namespace experts {
int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed);
size_t work_bytes(const State & s, const kernels::Kernel & kernel, const ggml::Tensor & op, int n_threads);
void compute(const State & s, const kernels::Kernel & kernel, const ggml::ComputeParams & params, ggml::Tensor & op);
} // namespace experts

namespace attention {
int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed);
bool is_there(const State & s, int32_t cache_type); // for heads of a usual size
void compute(const State & s, const ggml::ComputeParams & params, ggml::Tensor & op);
} // namespace attention

// --- helpers ----------------------------------------------------------------------------------------

inline const ggml::Buffer * buffer_of(const ggml::Tensor & tensor) {
    return tensor.view_src != nullptr ? tensor.view_src->buffer : tensor.buffer;
}

inline bool in_host_memory(const State & s, const ggml::Tensor & tensor) {
    const ggml::Buffer * buffer = buffer_of(tensor);
    return buffer != nullptr &&
           s.api.ggml_backend_buft_is_host(s.api.ggml_backend_buffer_get_type(const_cast<ggml::Buffer *>(buffer)));
}

inline const char * row_of(const ggml::Tensor & tensor, int64_t i1, int64_t i2) {
    return static_cast<const char *>(tensor.data) + static_cast<size_t>(i1) * tensor.nb[1] +
           static_cast<size_t>(i2) * tensor.nb[2];
}

inline float parameter(const ggml::Tensor & op, int at) {
    float value;
    std::memcpy(&value, &op.op_params[at], sizeof value);
    return value;
}

constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

inline char * aligned(void * memory) { return reinterpret_cast<char *>(aligned(reinterpret_cast<uintptr_t>(memory))); }

// Work is taken in chunks, one after another by whoever is free. Nobody leaves before all have come.
inline void start_chunks(const State & s, const ggml::ComputeParams & params) {
    if (params.ith == 0) {
        s.api.ggml_threadpool_chunk_set(params.threadpool, params.nth);
    }
    s.api.ggml_barrier(params.threadpool);
}

inline int next_chunk(const State & s, const ggml::ComputeParams & params) {
    return s.api.ggml_threadpool_chunk_add(params.threadpool, 1);
}

} // namespace mp::cpu_kernels
