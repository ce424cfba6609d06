// What products of one matrix and of several, of experts, share: their weights, and how rows of activations are
// quantized, packed and cut into chunks. Knows no operation's shape.
#pragma once

#include "cpu_backend/ops.h"

namespace mp::cpu_kernels {

// The first of the allowed entries for so many rows of activations times weights, or -1; matrices of experts follow one
// another.
int entry_for_weights(const State & s, const ggml::Tensor & w, int64_t n_rows, uint32_t allowed);

int32_t type_of(kernels::Activations activations);

// Memory for one quantized row.
size_t quantized_bytes(const State & s, const kernels::Kernel & kernel, int64_t k);

// The part of a row that a thread quantizes and packs, in elements.
struct Part {
    int64_t first;
    int64_t last;
};
Part part_of(const kernels::Kernel & kernel, int64_t k, const ggml::ComputeParams & params);

// That part of a row of floats as the kernel packs it; room: of quantized_bytes, for it.
const void * quantize(const State & s, const kernels::Kernel & kernel, const float * row, Part part, void * room);

// Ranges of columns that threads take one after another; a whole cache line of results at least.
int64_t columns_per_chunk(const kernels::Kernel & kernel, int64_t n_columns, int64_t wanted);

} // namespace mp::cpu_kernels
