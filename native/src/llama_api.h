// The table of llama.cpp and ggml functions that the core calls, and the structs that these take.
// Knows their C signatures; leaves loading the libraries, models and contexts to the caller. The addresses
// come from the library that the caller has loaded, so any backend and any build of it works. A test
// compiles this file against the installed llama.h and holds every line of it to the original.
#pragma once

#include <cstddef>
#include <cstdint>

struct llama_context;
struct llama_model;
struct llama_vocab;
struct llama_sampler;
struct llama_memory_i;
struct gguf_context;
struct ggml_context;

namespace mp {

struct llama_batch {
    int32_t n_tokens;
    int32_t * token;
    float * embd;
    int32_t * pos;
    int32_t * n_seq_id;
    int32_t ** seq_id;
    int8_t * logits;
};

struct llama_token_data {
    int32_t id;
    float logit;
    float p;
};

struct llama_token_data_array {
    llama_token_data * data;
    size_t size;
    int64_t selected;
    bool sorted;
};

struct gguf_init_params {
    bool no_alloc;
    ggml_context ** ctx;
};

struct ggml_type_traits {
    const char * type_name;
    int64_t blck_size;
    int64_t blck_size_interleave;
    size_t type_size;
    bool is_quantized;
    void (*to_float)(const void * x, float * y, int64_t k);
    void (*from_float_ref)(const float * x, void * y, int64_t k);
};

// X(return type, name, parameters)
#define MP_LLAMA_FUNCTIONS(X)                                                                                          \
    X(int32_t, llama_decode, (llama_context *, llama_batch))                                                           \
    X(void, llama_synchronize, (llama_context *))                                                                      \
    X(float *, llama_get_logits_ith, (llama_context *, int32_t))                                                       \
    X(uint32_t, llama_n_ctx, (const llama_context *))                                                                  \
    X(uint32_t, llama_n_batch, (const llama_context *))                                                                \
    X(uint32_t, llama_n_ubatch, (const llama_context *))                                                               \
    X(uint32_t, llama_n_seq_max, (const llama_context *))                                                              \
    X(const llama_model *, llama_get_model, (const llama_context *))                                                   \
    X(const llama_vocab *, llama_model_get_vocab, (const llama_model *))                                               \
    X(int32_t, llama_model_n_embd_inp, (const llama_model *))                                                          \
    X(bool, llama_model_is_recurrent, (const llama_model *))                                                           \
    X(bool, llama_model_is_hybrid, (const llama_model *))                                                              \
    X(uint32_t, llama_n_rs_seq, (const llama_context *))                                                               \
    X(int32_t, llama_vocab_n_tokens, (const llama_vocab *))                                                            \
    X(bool, llama_vocab_is_eog, (const llama_vocab *, int32_t))                                                        \
    X(llama_memory_i *, llama_get_memory, (const llama_context *))                                                     \
    X(void, llama_memory_clear, (llama_memory_i *, bool))                                                              \
    X(bool, llama_memory_seq_rm, (llama_memory_i *, int32_t, int32_t, int32_t))                                        \
    X(void, llama_memory_seq_cp, (llama_memory_i *, int32_t, int32_t, int32_t, int32_t))                               \
    X(size_t, llama_state_seq_get_size_ext, (llama_context *, int32_t, uint32_t))                                      \
    X(size_t, llama_state_seq_get_data_ext, (llama_context *, uint8_t *, size_t, int32_t, uint32_t))                   \
    X(size_t, llama_state_seq_set_data_ext, (llama_context *, const uint8_t *, size_t, int32_t, uint32_t))             \
    X(void, llama_sampler_apply, (llama_sampler *, llama_token_data_array *))                                          \
    X(void, llama_sampler_accept, (llama_sampler *, int32_t))                                                          \
    X(gguf_context *, gguf_init_from_file, (const char *, gguf_init_params))                                           \
    X(void, gguf_free, (gguf_context *))                                                                               \
    X(int64_t, gguf_find_tensor, (const gguf_context *, const char *))                                                 \
    X(size_t, gguf_get_data_offset, (const gguf_context *))                                                            \
    X(size_t, gguf_get_tensor_offset, (const gguf_context *, int64_t))                                                 \
    X(const int64_t *, gguf_get_tensor_ne, (const gguf_context *, int64_t))                                            \
    X(int32_t, gguf_get_tensor_type, (const gguf_context *, int64_t))                                                  \
    X(size_t, ggml_row_size, (int32_t, int64_t))                                                                       \
    X(const ggml_type_traits *, ggml_get_type_traits, (int32_t))

struct LlamaApi {
#define MP_FIELD(result, name, parameters) result(*name) parameters = nullptr;
    MP_LLAMA_FUNCTIONS(MP_FIELD)
#undef MP_FIELD
};

// The bound table; throws Error (MP_ERROR_BINDING) before bind_llama_api.
const LlamaApi & llama_api();

// Replaces the table; tests that drive the core with a mock call it directly.
void bind_llama_api(const LlamaApi & api);

// The i-th function the core needs, nullptr past the last.
const char * required_function(size_t index);

// Checks the layout of llama_batch (sizeof, then the offsets of its fields) and binds addresses by name.
// Throws Error (MP_ERROR_BINDING) naming what is missing; the old table stays then.
void bind_by_name(const char * const * names, void * const * addresses, size_t n, const size_t * batch_layout);

} // namespace mp
