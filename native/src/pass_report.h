// What a session reports, in the ABI's own structs: mp_pass with the arrays behind its pointers, and mp_totals. Knows
// the fields alone; what they say is the session's.
#pragma once

#include "maskprobe.h"

#include <cstdint>
#include <vector>

namespace mp {

struct PassReport {
    mp_pass record{};
    std::vector<int32_t> tokens; // committed
    std::vector<float> logp;     // [tokens], the model's log-probabilities of them; empty if not asked for
    std::vector<int32_t> top;    // [tokens, n_top], what it ranks highest in their places; -1 beyond
    std::vector<float> top_logp; // [tokens, n_top]

    void clear() {
        record = {};
        tokens.clear();
        logp.clear();
        top.clear();
        top_logp.clear();
    }

    // The record with pointers to the arrays as they are now; n_top: of each token, at least 0.
    const mp_pass & report(int32_t n_top) {
        record.tokens = tokens.data();
        record.n_tokens = static_cast<int32_t>(tokens.size());
        record.logp = logp.empty() ? nullptr : logp.data();
        record.top = top.data();
        record.top_logp = top_logp.data();
        record.n_top = n_top;
        return record;
    }
};

// Adds a pass to its generation's sums. The said_* fields are Reliability's.
inline void add(mp_totals & totals, const mp_pass & pass) {
    totals.n_drafted += pass.n_drafted;
    totals.n_rows += pass.n_rows;
    totals.n_again += pass.n_again;
    totals.n_kv_scans += pass.n_kv_scans;
    totals.n_probed += pass.n_probed;
    totals.probe_logp += pass.probe_logp;
    totals.expected += pass.expected;
    totals.decode_ms += pass.decode_ms;
}

} // namespace mp
