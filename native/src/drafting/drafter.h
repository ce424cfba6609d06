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

#include <memory>
#include <optional>
#include <utility>

namespace mp {

// What drafters of one model and machine learn for each other.
struct Learned {
    size_t n_vocab;
    AdjacencySource adjacency;
    HistorySource history;
    std::shared_ptr<Market> market; // of the latest costs; null: none yet

    explicit Learned(int32_t n) : n_vocab(static_cast<size_t>(n)), adjacency(n_vocab) {}
    // That of these settings' costs: the latest one, or a new one.
    std::shared_ptr<Market> market_of(const Speculation & settings);
    // Forgets all but a table that was set.
    void forget();
};

class Drafter {
public:
    explicit Drafter(int32_t n_vocab) : Drafter(std::make_shared<Learned>(n_vocab)) {}
    explicit Drafter(std::shared_ptr<Learned> learned) : learned_(std::move(learned)), grammar_(learned_->n_vocab) {}

    // --- a generation, pass by pass --------------------------------------------------------------

    // settings: checked before; their masks are not looked at. alone: no other text is being generated.
    void begin(Speculation settings, const std::vector<int32_t> & prompt, bool alone = true);
    // The next tree under a root and its masks, as much as the settings and the limits allow; limits.masks is not
    // looked at.
    Plan plan(int32_t root, PlanLimits limits) const;
    // The same where others share the pass: what it would have, and the tree of as many of these rows as it gets.
    // Trees of guesses alone propose no rows: they take what the limits leave.
    Proposal propose(int32_t root, PlanLimits limits) const;
    Plan settle(Proposal proposal, size_t n) const;
    bool proposes() const { return settings_.is_mixed(); }
    const Budget & budget() const { return budget_; }
    Market & market() { return budget_.market(); }
    // Whether it wants learn to be called for verified rows.
    bool learns_from_rows() const { return settings_.is_mixed(); }
    // What a verified row teaches: the token that followed a node of the plan, and what the model ranked highest there,
    // AdjacencySource::width candidates.
    void learn(const Plan & plan, int32_t node, int32_t actual, const Candidates & ranked);
    // The text goes on with this token.
    void commit(int32_t token);
    // Learns how drafts have fared in a pass. path: its accepted nodes, the root first. What it has cost is the
    // market's.
    void end_pass(const Plan & plan, const std::vector<int32_t> & path);

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
    void set_adjacency(const int32_t * tokens, const float * logps) { learned_->adjacency.set_table(tokens, logps); }
    // Learns from a text that the model wrote.
    void learn_text(const std::vector<int32_t> & tokens) { learned_->history.learn(tokens, 0); }
    // Forgets what was learned, but not a table that was set. running: the text of a generation that goes on.
    void forget(const std::vector<int32_t> & running);
    // How drafts of the present generation came true.
    const Reliability & reliability() const { return reliability_; }

private:
    void begin_mixed(const std::vector<int32_t> & prompt, bool alone);
    PlanLimits kept(PlanLimits limits) const;
    Evidence evidence() const;
    Plan plan_of_guesses(int32_t root, const PlanLimits & limits) const;

    std::shared_ptr<Learned> learned_;
    Speculation settings_;
    std::vector<Candidates> guesses_; // as set_guesses was told
    NgramSource ngrams_;              // its tokens: all committed ones
    GrammarSource grammar_;           // whose grammar is this text's
    size_t written_from_ = 0;         // in the tokens of ngrams_: from here on by the model, and not in the history yet
    Mixer mixer_;
    Budget budget_{{1.0f}, false};
    Reliability reliability_;
};

} // namespace mp
