// How many rows a pass is worth: what rows cost, what a token is worth in that cost, and how far expectations may be
// trusted. Knows no tokens and no trees.
//
// Texts that are generated side by side share their passes, so costs and prices are theirs in common; what drafts of
// a text are worth is its own.
//
// Maximizing tokens over time in the long run means maximizing, pass by pass, tokens - price * cost, where
// the price is the best rate of tokens per cost that can be kept up (the ratio of a renewal process; Dinkelbach
// 1967). Plain decoding's rate, 1 / cost(1), is its lower bound: at that price a row must earn more than plain
// decoding would in the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace mp {

// What passes of so many texts cost, and what a token is worth in that.
class Prices {
public:
    // cost[i]: cost of a pass of i + 1 rows after one of as many, in any unit; longer passes go on as the last two
    // say. change: what it costs more after a pass of another number of rows. With refine they are in ms, and
    // observed costs correct the former. n_texts: rows of a plain pass, one for each text.
    Prices(std::vector<float> cost, bool refine, float change, size_t n_texts);

    // What the next pass costs if it has so many rows.
    float cost(size_t rows) const;
    // Forgets how drafts have fared; the curve and its corrections stay.
    void begin_text();
    // Tokens that one unit of cost is worth. With refine it falls while nothing is drafted: a curve that was measured
    // too dear would never be found out otherwise.
    float price() const;
    // A pass of so many rows committed so many tokens; cost_ms is used with refine only.
    void observe(size_t rows, size_t tokens, double cost_ms);
    // A pass had so many rows, some of them of prompts, which bring no tokens.
    void observe_prompts(size_t rows, double cost_ms);

private:
    float base(size_t rows) const;
    float steady(size_t rows) const; // among passes of as many
    bool changes(size_t rows) const { return last_rows_ != 0 && rows != last_rows_; }
    void refine_by(size_t rows, double cost_ms);

    std::vector<float> base_;
    std::vector<float> correction_; // observed / expected, by rows
    std::vector<float> seen_;       // how many passes that rests on, the measurement at load among them
    bool refine_;
    float change_;
    size_t n_texts_;
    size_t last_rows_ = 0; // rows that the pass before had; 0 where every number of rows is a change
    int undrafted_ = 0;    // plain passes since the last that had drafts
    float scale_ = 1.0f;   // ms per unit of the curve
    // Sums over the passes of these texts, which fade.
    double tokens_ = 0.0; // committed
    double spent_ = 0.0;  // cost
    double saved_ = 0.0;  // plain passes that drafts spared
};

// The prices of one curve, for any number of texts side by side.
class Market {
public:
    Market(std::vector<float> cost, bool refine, float change);

    bool is_of(const std::vector<float> & cost, bool refine) const { return cost_ == cost && refine_ == refine; }
    bool refines() const { return refine_; }
    // So many texts take part in the passes from now on.
    void open(size_t n_texts);
    Prices & prices() { return by_texts_[n_texts_ - 1]; }
    const Prices & prices() const { return by_texts_[n_texts_ - 1]; }
    void begin_text();

private:
    std::vector<float> cost_;
    bool refine_;
    float change_;
    size_t n_texts_ = 1;
    std::vector<Prices> by_texts_; // [the most there were]
};

// What a pass may cost one text.
class Budget {
public:
    // As of Prices; the market is its own.
    Budget(std::vector<float> cost, bool refine, float change = 0.0f);
    explicit Budget(std::shared_ptr<Market> market) : market_(std::move(market)) {}

    Market & market() { return *market_; }
    float cost(size_t rows) const { return market_->prices().cost(rows); }
    float price() const { return market_->prices().price(); }
    // How far expectations may be trusted: accepted over expected drafts of late, at most 1.
    float trust() const;
    // Forgets how drafts of this text have fared.
    void begin_trust() { accepted_ = promised_ = 0.0; }
    void begin_text();
    // Of this text a pass committed so many tokens where so many were expected.
    void observe_drafts(size_t tokens, float expected);
    // The same of a pass that this text had alone.
    void observe(size_t rows, size_t tokens, float expected, double cost_ms);

private:
    std::shared_ptr<Market> market_;
    // Sums over the passes of this text, which fade.
    double accepted_ = 0.0; // drafts that came true
    double promised_ = 0.0; // drafts that were expected to
};

} // namespace mp
