// A mock of llama.cpp of any size, with any logits, and calls of it that fail.
#pragma once

#include "fuzz.h"
#include "mock_llama.h"

namespace mp::test {

inline MockLlama any_model(Input & in) {
    MockLlama model;
    model.n_vocab = 1 + in.below(40);
    model.n_embd = 2 + in.below(4);
    model.n_batch = 1 + in.below(48);
    model.n_ubatch = 1 + in.below(static_cast<int32_t>(model.n_batch));
    model.n_seq_max = 1 + in.below(24);
    model.embedding_scale = in.coin() ? 1.0f : 2.0f;
    model.n_remembered = in.below(4);
    for (int32_t i = in.below(3); i > 0; --i) {
        model.eog.insert(in.below(model.n_vocab));
    }
    const std::vector<int32_t> ranks = in.tokens(7, 6);
    model.rank_of_truth = [ranks](int32_t pos, size_t mask) { return ranks[(pos * 3 + mask) % ranks.size()] - 2; };
    std::vector<float> logits(5);
    for (float & logit : logits) {
        logit = in.some_float();
    }
    if (in.coin()) {
        model.logit_of_rank = [logits](int32_t rank) { return logits[rank % logits.size()]; };
    }
    model.resize(2 + in.below(62));
    if (in.last() >= 192) {
        model.kind = MockMemory::copies;
        model.n_seq_max = 2;
    } else if (in.last() >= 128) {
        model.kind = MockMemory::snapshots;
        model.n_seq_max = 1;
        model.n_snapshots = 1 + in.last() % 16;
        model.n_ubatch = std::max(model.n_ubatch, model.n_snapshots + 2); // as whoever makes the context sees to
        model.n_batch = std::max(model.n_batch, model.n_ubatch);
    }
    model.has_four_positions = in.last() % 3 == 0;
    model.n_embd_more = in.last() % 5 == 0 ? model.n_embd : 0;
    return model;
}

inline void add_faults(Input & in, MockLlama & llama) {
    llama.decode_codes.clear();
    llama.null_logits.clear();
    if (in.rarely(3)) {
        const int32_t codes[] = {1, 2, -1, -2, -3};
        llama.decode_codes[llama.n_decode_calls + in.below(12)] = codes[in.below(5)];
    }
    if (in.rarely(3)) {
        llama.null_logits.insert(llama.n_logits_calls + in.below(40));
    }
}

} // namespace mp::test
