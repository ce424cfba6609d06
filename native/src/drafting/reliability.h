// How often drafted nodes came true against how often they were said to, in classes of the latter. Counts, and draws
// no conclusions.
#pragma once

#include "drafting/tree.h"
#include "maskprobe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace mp {

class Reliability {
public:
    struct Class {
        int64_t n = 0;      // drafted nodes
        int64_t n_true = 0; // how many of them were accepted
        double said = 0.0;  // sum of the probabilities with which they were expected to be
    };
    using Classes = std::array<Class, MP_RELIABILITY_CLASSES>;

    // path: the accepted nodes of the tree, the root first.
    void add(const DraftTree & tree, const std::vector<int32_t> & path) {
        for (size_t i = 1; i < tree.size(); ++i) {
            Class & c = class_of(tree.logp[i]);
            ++c.n;
            c.said += std::exp(static_cast<double>(tree.logp[i]));
        }
        for (size_t i = 1; i < path.size(); ++i) {
            ++class_of(tree.logp[path[i]]).n_true;
        }
    }

    const Classes & classes() const { return classes_; }
    // Fills the said_* fields.
    void copy_to(mp_totals & totals) const {
        for (size_t i = 0; i < classes_.size(); ++i) {
            totals.said_n[i] = classes_[i].n;
            totals.said_n_true[i] = classes_[i].n_true;
            totals.said_sum[i] = classes_[i].said;
        }
    }

private:
    Class & class_of(float logp) {
        const auto i = static_cast<size_t>(std::exp(std::min(logp, 0.0f)) * MP_RELIABILITY_CLASSES);
        return classes_[std::min<size_t>(i, MP_RELIABILITY_CLASSES - 1)];
    }

    Classes classes_;
};

} // namespace mp
