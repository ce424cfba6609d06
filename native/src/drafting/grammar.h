// Grammar source: what a grammar says of a node, which its keeper outside is asked for. What it forbids is no
// candidate. What it allows tells where in it a text is: what followed where the same was allowed is kept across texts,
// and so are the punctuation and the order of keys that the model uses. Knows bits and tokens; no grammar and no text.
#pragma once

#include "drafting/followers.h"
#include "drafting/sources.h"
#include "maskprobe.h"

#include <optional>

namespace mp {

// Where in a grammar a node is.
struct GrammarPlace {
    std::vector<uint32_t> allowed; // a bit for each token of the vocabulary, the lowest first
    size_t n_allowed = 0;
    uint64_t state = 0;  // a digest of what is allowed, never 0
    int32_t forced = -1; // the token with which the text that must follow begins, if one is known

    bool allows(int32_t token) const {
        const auto bit = static_cast<size_t>(token);
        return token >= 0 && bit / 32 < allowed.size() && (allowed[bit / 32] >> bit % 32 & 1u) != 0;
    }
};

class GrammarSource {
public:
    explicit GrammarSource(size_t n_vocab) : n_vocab_(n_vocab) {}

    // guide: the keeper of the grammar, NULL if there is none; asked until the next text begins.
    void begin(mp_guide guide, void * data);
    // What the grammar says behind the committed tokens and these drafted ones; nothing where its keeper knows nothing.
    std::optional<GrammarPlace> look(const int32_t * drafted, size_t n) const;
    // Takes out what is forbidden and adds what is known of the place. Other sources come before.
    void propose(const GrammarPlace & place, const NodeContext & node, CandidateSet & out) const;
    // The token that followed last in a place for which it had proposed.
    void learn(const CandidateSet & set, int32_t last, int32_t actual);
    void forget() { table_.forget(); }

private:
    static constexpr size_t n_orders = 2;    // contexts: the state, and the state behind a token
    static constexpr size_t most_added = 16; // of so many allowed tokens each is a candidate

    size_t n_vocab_;
    mp_guide guide_ = nullptr;
    void * data_ = nullptr;
    FollowerTable table_{n_orders, 1ull << 13}; // 512 KiB in all
};

} // namespace mp
