// The mock's functions and the layout of the batch, as the package gives those of llama.cpp to the core.
#pragma once

#include "maskprobe.h"
#include "mock_llama.h"

#include <cstddef>

namespace mp::test {

inline const std::vector<size_t> batch_layout{sizeof(llama_batch),           offsetof(llama_batch, n_tokens),
                                              offsetof(llama_batch, token),  offsetof(llama_batch, embd),
                                              offsetof(llama_batch, pos),    offsetof(llama_batch, n_seq_id),
                                              offsetof(llama_batch, seq_id), offsetof(llama_batch, logits)};

struct MockTable {
    std::vector<const char *> names;
    std::vector<void *> addresses;

    MockTable() {
        const LlamaApi api = mock_api();
#define ADD(result, name, parameters)                                                                                  \
    names.push_back(#name);                                                                                            \
    addresses.push_back(reinterpret_cast<void *>(api.name));
        MP_LLAMA_FUNCTIONS(ADD)
#undef ADD
    }
    int bind(const std::vector<size_t> & layout = batch_layout) const {
        return mp_bind(names.data(), addresses.data(), names.size(), layout.data());
    }
};

} // namespace mp::test
