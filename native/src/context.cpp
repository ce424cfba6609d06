#include "context.h"

#include "error.h"

#include <chrono>

namespace mp {

namespace {

// What a code of llama_decode other than 0 means.
std::string decode_failure(int32_t code) {
    switch (code) {
    case 1: return "llama_decode found no room in the KV cache for the batch (1)";
    case 2: return "llama_decode was aborted (2)";
    case -1: return "llama_decode rejected the batch as invalid (-1)";
    default: return "llama_decode failed in the backend (" + std::to_string(code) + ")";
    }
}

} // namespace

Context::Context(llama_context * ctx)
    : ctx_(ctx), memory_(llama_api().llama_get_memory(ctx)),
      vocab_(llama_api().llama_model_get_vocab(llama_api().llama_get_model(ctx))),
      n_vocab_(llama_api().llama_vocab_n_tokens(vocab_)) {
    if (memory_ == nullptr) {
        throw Error(MP_ERROR_ARGUMENT, "the context has no KV cache: not a decoder");
    }
}

void Context::check_tokens(const std::vector<int32_t> & tokens) const {
    for (const int32_t token : tokens) {
        if (token < 0 || token >= n_vocab_) {
            throw Error(MP_ERROR_ARGUMENT, "token " + std::to_string(token) + " is not in the vocabulary");
        }
    }
}

double Context::decode(Block & block, float * embd) const {
    const BatchView view(block, embd);
    const auto start = std::chrono::steady_clock::now();
    const int32_t code = llama_api().llama_decode(ctx_, view.get());
    if (code != 0) {
        throw Error(MP_ERROR_DECODE, decode_failure(code));
    }
    llama_api().llama_synchronize(ctx_);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

const float * Context::logits_of(int32_t row) const {
    const float * logits = find_logits(row);
    if (logits == nullptr) {
        throw Error(MP_ERROR_DECODE, "llama.cpp returned no logits for row " + std::to_string(row));
    }
    return logits;
}

} // namespace mp
