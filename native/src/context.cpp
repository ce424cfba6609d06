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

constexpr uint32_t recurrent_only = 1; // LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY

Rewind rewind_of(const llama_context * ctx) {
    const LlamaApi & api = llama_api();
    const llama_model * model = api.llama_get_model(ctx);
    if (!api.llama_model_is_recurrent(model) && !api.llama_model_is_hybrid(model)) {
        return Rewind::cells;
    }
    return api.llama_n_rs_seq(ctx) > 0 ? Rewind::snapshots : Rewind::copies;
}

} // namespace

Context::Context(llama_context * ctx)
    : ctx_(ctx), memory_(llama_api().llama_get_memory(ctx)),
      vocab_(llama_api().llama_model_get_vocab(llama_api().llama_get_model(ctx))),
      n_vocab_(llama_api().llama_vocab_n_tokens(vocab_)),
      n_embd_inp_(static_cast<size_t>(llama_api().llama_model_n_embd_inp(llama_api().llama_get_model(ctx)))),
      rewind_(rewind_of(ctx)) {
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

std::vector<uint8_t> Context::save(int32_t sequence, bool recurrent_alone) const {
    const uint32_t flags = recurrent_alone ? recurrent_only : 0;
    std::vector<uint8_t> state(llama_api().llama_state_seq_get_size_ext(ctx_, sequence, flags));
    const size_t n = llama_api().llama_state_seq_get_data_ext(ctx_, state.data(), state.size(), sequence, flags);
    state.resize(n == state.size() ? n : 0);
    return state;
}

bool Context::load(int32_t sequence, const std::vector<uint8_t> & state, bool recurrent_alone) const {
    const uint32_t flags = recurrent_alone ? recurrent_only : 0;
    return llama_api().llama_state_seq_set_data_ext(ctx_, state.data(), state.size(), sequence, flags) == state.size();
}

} // namespace mp
