#include "llama_api.h"

#include "error.h"

#include <string>
#include <unordered_map>
#include <vector>

namespace mp {

namespace {

LlamaApi bound;
bool is_bound = false;

constexpr const char * function_names[] = {
#define MP_NAME(result, name, parameters) #name,
    MP_LLAMA_FUNCTIONS(MP_NAME)
#undef MP_NAME
};

LlamaApi table_from(const std::unordered_map<std::string, void *> & addresses) {
    LlamaApi api;
    std::string missing;
#define MP_TAKE(result, name, parameters)                                                                              \
    if (const auto found = addresses.find(#name); found != addresses.end() && found->second != nullptr) {              \
        api.name = reinterpret_cast<result(*) parameters>(found->second);                                              \
    } else {                                                                                                           \
        missing += missing.empty() ? #name : ", " #name;                                                               \
    }
    MP_LLAMA_FUNCTIONS(MP_TAKE)
#undef MP_TAKE
    if (!missing.empty()) {
        throw Error(MP_ERROR_BINDING, "llama.cpp lacks " + missing);
    }
    return api;
}

void check_batch_layout(const size_t * layout) {
    const size_t expected[] = {sizeof(llama_batch),           offsetof(llama_batch, n_tokens),
                               offsetof(llama_batch, token),  offsetof(llama_batch, embd),
                               offsetof(llama_batch, pos),    offsetof(llama_batch, n_seq_id),
                               offsetof(llama_batch, seq_id), offsetof(llama_batch, logits)};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i) {
        if (layout[i] != expected[i]) {
            throw Error(MP_ERROR_BINDING, "llama_batch is laid out differently: value " + std::to_string(i) + " is " +
                                              std::to_string(layout[i]) + ", expected " + std::to_string(expected[i]));
        }
    }
}

} // namespace

const LlamaApi & llama_api() {
    if (!is_bound) {
        throw Error(MP_ERROR_BINDING, "llama.cpp is not bound: call mp_bind first");
    }
    return bound;
}

void bind_llama_api(const LlamaApi & api) {
    bound = api;
    is_bound = true;
}

const char * required_function(size_t index) {
    return index < sizeof function_names / sizeof *function_names ? function_names[index] : nullptr;
}

void bind_by_name(const char * const * names, void * const * addresses, size_t n, const size_t * batch_layout) {
    std::unordered_map<std::string, void *> by_name;
    for (size_t i = 0; i < n; ++i) {
        by_name[names[i]] = addresses[i];
    }
    check_batch_layout(batch_layout);
    bind_llama_api(table_from(by_name));
}

} // namespace mp
