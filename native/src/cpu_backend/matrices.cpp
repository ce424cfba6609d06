#include "cpu_backend/matrices.h"

#include <algorithm>

namespace mp::cpu_kernels {

int entry_for_weights(const State & s, const ggml::Tensor & w, int64_t n_rows, uint32_t allowed) {
    // Weights are seen by their buffer: repacked ones, or plain ones in host memory.
    const ggml::Buffer * buffer = buffer_of(w);
    if (buffer == nullptr || w.data == nullptr || n_rows < 1 || w.ne[3] != 1) {
        return -1;
    }
    ggml::BufferType * type = s.api.ggml_backend_buffer_get_type(const_cast<ggml::Buffer *>(buffer));
    const bool repacked = type == s.repack;
    if (!repacked && !s.api.ggml_backend_buft_is_host(type)) {
        return -1;
    }
    for (size_t i = 0; i < s.n_entries; ++i) {
        const Entry & entry = s.entries[i];
        const bool is_allowed = (allowed >> i & 1u) != 0;
        if (is_allowed && entry.type == w.type && entry.repacked == repacked && !entry.is_attention) {
            const kernels::Kernel & kernel = *entry.kernel;
            const bool fits = w.ne[0] > 0 && w.ne[1] > 0 && w.ne[0] % kernel.k_multiple == 0 &&
                              w.ne[1] % kernel.n_multiple == 0 && n_rows >= kernel.fewest_rows;
            const bool rows_follow = w.nb[1] == s.api.ggml_row_size(w.type, w.ne[0]);
            const bool is_view_of_repacked = repacked && w.view_src != nullptr;
            return fits && rows_follow && !is_view_of_repacked ? static_cast<int>(i) : -1;
        }
    }
    return -1;
}

int32_t type_of(kernels::Activations activations) {
    using kernels::Activations;
    switch (activations) {
    case Activations::q8_0: return ggml::q8_0;
    case Activations::q8_1: return ggml::q8_1;
    case Activations::q8_k: return ggml::q8_k;
    case Activations::bf16: return ggml::bf16;
    case Activations::f16: return ggml::f16;
    case Activations::f32: return ggml::f32;
    }
    return ggml::f32;
}

size_t quantized_bytes(const State & s, const kernels::Kernel & kernel, int64_t k) {
    return aligned(s.api.ggml_row_size(type_of(kernel.activations), k));
}

Part part_of(const kernels::Kernel & kernel, int64_t k, const ggml::ComputeParams & params) {
    const int64_t n_blocks = k / kernel.k_multiple;
    return {n_blocks * params.ith / params.nth * kernel.k_multiple,
            n_blocks * (params.ith + 1) / params.nth * kernel.k_multiple};
}

const void * quantize(const State & s, const kernels::Kernel & kernel, const float * row, Part part, void * room) {
    const int32_t type = type_of(kernel.activations);
    if (type == ggml::f32) {
        return row + part.first;
    }
    s.api.ggml_get_type_traits_cpu(type)->from_float(row + part.first, room, part.last - part.first);
    return room;
}

int64_t columns_per_chunk(const kernels::Kernel & kernel, int64_t n_columns, int64_t wanted) {
    const int64_t unit =
        kernel.range_multiple % 2 == 0 ? std::max(16, kernel.range_multiple) : 16 * kernel.range_multiple;
    return std::min(n_columns, (wanted + unit - 1) / unit * unit);
}

} // namespace mp::cpu_kernels
