// How many rows a pass is worth: what rows cost, and what a token is worth in that cost. Knows no tokens and
// no trees.
//
// Maximizing tokens over time in the long run means maximizing, pass by pass, tokens - price * cost, where
// the price is the best rate of tokens per cost that can be kept up (the ratio of a renewal process; Dinkelbach
// 1967). Plain decoding's rate, 1 / cost(1), is its lower bound: at that price a row must earn more than plain
// decoding would in the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mp {

class Budget {
public:
    // cost[i]: cost of a pass of i + 1 rows after one of as many, in any unit; longer passes go on as the last two
    // say. change: what it costs more after a pass of another number of rows. With refine they are in ms, and
    // observed costs correct the former.
    Budget(std::vector<float> cost, bool refine, float change = 0.0f);

    bool refines() const { return refine_; }
    // What the next pass costs if it has so many rows.
    float cost(size_t rows) const;
    // Forgets how drafts have fared; the curve and its corrections stay.
    void begin_text();
    // Tokens that one unit of cost is worth. With refine it falls while nothing is drafted: a curve that was measured
    // too dear would never be found out otherwise.
    float price() const;
    // How far expectations may be trusted: accepted over expected drafts of late, at most 1.
    float trust() const;
    // A pass of so many rows committed so many tokens where so many were expected; cost_ms is used with
    // refine only.
    void observe(size_t rows, size_t tokens, float expected, double cost_ms);

private:
    float base(size_t rows) const;
    float steady(size_t rows) const; // among passes of as many
    bool changes(size_t rows) const { return last_rows_ != 0 && rows != last_rows_; }

    std::vector<float> base_;
    std::vector<float> correction_; // observed / expected, by rows
    std::vector<float> seen_;       // how many passes that rests on, the measurement at load among them
    bool refine_;
    float change_;
    size_t last_rows_ = 0; // rows that the pass before had; 0 where every number of rows is a change
    int undrafted_ = 0;    // passes of one row since the last that had more
    float scale_ = 1.0f;   // ms per unit of the curve
    // Sums over the passes of this text, which fade.
    double tokens_ = 0.0;   // committed
    double spent_ = 0.0;    // cost
    double accepted_ = 0.0; // drafts that came true
    double promised_ = 0.0; // drafts that were expected to
    double saved_ = 0.0;    // plain passes that drafts spared
};

} // namespace mp
