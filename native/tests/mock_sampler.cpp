// Logits that are asked for, and the mock's sampler, which draws from them.
#include "mock_parts.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mp::test::mock {

namespace {

float * logits_of(MockLlama & m, int32_t row) {
    const bool has = row >= 0 && static_cast<size_t>(row) < m.rows.size() && m.rows[row].output;
    return has ? m.rows[row].logits.data() : nullptr;
}

// Samplers see logits alone; the row that was last asked for tells where they come from.
thread_local int32_t last_asked_pos = -1;

void apply(llama_sampler * handle, llama_token_data_array * candidates) {
    const MockSampler & sampler = *reinterpret_cast<MockSampler *>(handle);
    std::vector<float> logits;
    for (size_t i = 0; i < candidates->size; ++i) {
        if (sampler.draws.size() >= sampler.n_allowed) {
            candidates->data[i].logit = -std::numeric_limits<float>::infinity();
        }
        logits.push_back(candidates->data[i].logit);
    }
    int32_t token = argmax(logits);
    if (sampler.seed != 0) {
        double total = 0.0;
        for (const float x : logits) {
            total += std::exp(static_cast<double>(x));
        }
        const int32_t n_vocab = static_cast<int32_t>(logits.size());
        double left = total * unit(mix(sampler.seed, sampler.draws.size()));
        for (token = 0; token + 1 < n_vocab; ++token) {
            left -= std::exp(static_cast<double>(logits[token]));
            if (left < 0.0) {
                break;
            }
        }
    }
    candidates->selected = token;
}

void accept(llama_sampler * handle, int32_t token) {
    reinterpret_cast<MockSampler *>(handle)->draws.push_back({last_asked_pos, token});
}

} // namespace

void add_sampler_functions(LlamaApi & api) {
    api.llama_get_logits_ith = [](llama_context * ctx, int32_t row) -> float * {
        MockLlama & m = self(ctx);
        float * logits = logits_of(m, row);
        last_asked_pos = logits == nullptr ? -1 : m.rows[row].pos;
        if (m.null_logits.count(m.n_logits_calls++) != 0) {
            m.null_was_a_mask = logits != nullptr && m.rows[row].token < 0;
            return nullptr;
        }
        return logits;
    };
    api.llama_sampler_apply = apply;
    api.llama_sampler_accept = accept;
}

} // namespace mp::test::mock
