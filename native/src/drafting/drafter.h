// Drafts for a session: the next tree and its masks, grown as the settings say from what the sources, the mixer, the
// budget and the masks of the last pass know. Knows tokens, ranked candidates and costs; leaves rows, logits, the KV
// cache and the masks' embeddings to the session.
//
// What is learned of the model and the machine stays for the next generations, what is learned of a text as long as
// the text goes on. It decides how fast tokens come, never which.
#pragma once

#include "drafting/planner.h"
#include "drafting/reliability.h"
#include "drafting/speculation.h"

#include <optional>

namespace mp {

class Drafter {
public:
    explicit Drafter(int32_t n_vocab)
        : adjacency_(static_cast<size_t>(n_vocab)), grammar_(static_cast<size_t>(n_vocab)) {}

    // --- a generation, pass by pass --------------------------------------------------------------

    // settings: checked before; their masks are not looked at.
    void begin(Speculation settings, const std::vector<int32_t> & prompt);
    // The next tree under a root and its masks, as much as the settings and the limits allow; limits.masks is not
    // looked at.
    Plan plan(int32_t root, PlanLimits limits) const;
    // Whether it wants learn to be called for verified rows.
    bool learns_from_rows() const { return settings_.is_mixed(); }
    // What a verified row teaches: the token that followed a node of the plan, and what the model ranked highest there,
    // AdjacencySource::width candidates.
    void learn(const Plan & plan, int32_t node, int32_t actual, const Candidates & ranked);
    // The text goes on with this token.
    void commit(int32_t token);
    // Learns how a pass went. path: its accepted nodes, the root first; n_rows: all rows given to llama_decode.
    void end_pass(const Plan & plan, const std::vector<int32_t> & path, size_t n_rows, double decode_ms);

    // --- what the masks guess --------------------------------------------------------------------

    // How many candidates to rank for the i-th mask of the node at which a pass ended.
    size_t n_ranked(size_t mask) const;
    // What these masks rank, one list a mask: guesses[d] for depth d + 1 of the next tree. Empty: there were none.
    void set_guesses(std::vector<Candidates> guesses) { guesses_ = std::move(guesses); }
    // The log-probability that the masks gave the token behind the root, list_floor where they did not rank it; nothing
    // if no masks were read.
    std::optional<float> guessed(int32_t token) const;

    // --- from generation to generation -----------------------------------------------------------

    // What follows each token alone: [n_vocab, AdjacencySource::width] each, best first.
    void set_adjacency(const int32_t * tokens, const float * logps) { adjacency_.set_table(tokens, logps); }
    // Learns from a text that the model wrote.
    void learn_text(const std::vector<int32_t> & tokens) { history_.learn(tokens, 0); }
    // Forgets what was learned, but not a table that was set. running: the text of a generation that goes on.
    void forget(const std::vector<int32_t> & running);
    // How drafts of the present generation came true.
    const Reliability & reliability() const { return reliability_; }

private:
    void begin_mixed(const std::vector<int32_t> & prompt);
    Plan plan_mixed(int32_t root, PlanLimits limits) const;
    Plan plan_of_guesses(int32_t root, const PlanLimits & limits) const;

    Speculation settings_;
    std::vector<Candidates> guesses_; // as set_guesses was told
    NgramSource ngrams_;              // its tokens: all committed ones
    AdjacencySource adjacency_;
    HistorySource history_;
    GrammarSource grammar_;
    size_t written_from_ = 0; // in the tokens of ngrams_: from here on by the model, and not in the history yet
    Mixer mixer_;
    Budget budget_{{1.0f}, false};
    std::vector<float> budget_cost_; // the cost that budget_ was made with
    Reliability reliability_;
};

} // namespace mp
