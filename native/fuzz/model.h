// A mock of llama.cpp of any size, with any logits, and calls of it that fail; and any settings of drafts.
#pragma once

#include "fuzz.h"
#include "keeper.h"
#include "mock_llama.h"
#include "session_fixture.h"

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

// Some of them do not fit the model or each other.
inline Speculation any_speculation(Input & in, const MockLlama & model, AnyKeeper & keeper) {
    Speculation speculation;
    speculation.guide = keeper.guide();
    speculation.guide_data = &keeper;
    speculation.tree = static_cast<mp_tree>(in.below(4));
    speculation.n_masks = speculation.tree == MP_TREE_NONE ? 0 : in.below(MP_MAX_MASKS + 1);
    if (speculation.tree == MP_TREE_STATIC) {
        speculation.widths = in.tokens(in.below(speculation.n_masks + 1), 6);
    }
    speculation.block = in.below(40);
    speculation.block -= in.rarely(16);
    speculation.prune = in.coin();
    speculation.update = in.rarely(8) ? in.any_float() : static_cast<float>(in.below(3)) / 2.0f;
    speculation.masks = mask_start(model, speculation.n_masks);
    if (in.rarely(32) && !speculation.masks.empty()) {
        speculation.masks.back() = in.any_float();
    }
    speculation.sources = in.below(4);
    speculation.refine = in.rarely(4);
    const float slope = static_cast<float>(in.below(16)) / 16.0f;
    for (int32_t i = 0, n = in.rarely(16) ? 0 : 1 + in.below(40); i < n; ++i) {
        speculation.cost.push_back(in.rarely(32) ? in.any_float() : 1.0f + slope * static_cast<float>(i));
    }
    return speculation;
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
