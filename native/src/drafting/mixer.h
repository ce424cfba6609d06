// Turns the evidence of all sources about a node's candidates into probabilities, and learns from what
// turned out: a multinomial logistic regression over the candidates and "none of these", trained online, so
// that a candidate said to follow with probability p follows about p of the time.
#pragma once

#include "drafting/sources.h"

namespace mp {

class Mixer {
public:
    Mixer();

    // Sets the probability of every candidate and of none of them.
    void mix(CandidateSet & set) const;
    // set: as mixed before; actual: the token that followed.
    void learn(const CandidateSet & set, int32_t actual);

    Features & weights() { return weights_; }

private:
    Features weights_{};
    Features squares_; // sums of squared gradients (AdaGrad: Duchi et al. 2011)
    // The likeliest candidate is the winner of many and so promises too much; its log-odds are corrected by a
    // line that is learned too (Platt 1999).
    float slope_ = 0.55f;
    float offset_ = 0.0f;
};

} // namespace mp
