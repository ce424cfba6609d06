#include "pool.h"

#include "cpu_backend/cpu_kernels.h"
#include "error.h"

#include <algorithm>

namespace mp {

namespace {

constexpr size_t least_shared = 8;  // tokens more than a lane's own for which it gives those up for another's
constexpr size_t least_parked = 32; // tokens that are worth keeping

} // namespace

Pool::Pool(llama_context * ctx, Embeddings * embeddings, float embedding_scale)
    : embeddings_(embeddings), embedding_scale_(embedding_scale), cells_(std::make_shared<Cells>(ctx)),
      sizes_{1, 0, context().n_batch(), context().n_batch(), 0},
      learned_(std::make_shared<Learned>(context().n_vocab())) {
    add_lanes();
}

Pool::Pool(llama_context * ctx, Embeddings * embeddings, float embedding_scale, const PoolSizes & sizes)
    : embeddings_(embeddings), embedding_scale_(embedding_scale),
      cells_(std::make_shared<Cells>(ctx, sizes.n_lanes, sizes.n_ids)), sizes_(sizes),
      learned_(std::make_shared<Learned>(context().n_vocab())) {
    if (sizes.rows < 2 || sizes.rows > context().n_ubatch() || sizes.piece < 1) {
        throw Error(MP_ERROR_ARGUMENT, "passes of several lanes need 2..n_ubatch rows and pieces of 1 row at least");
    }
    add_lanes();
}

void Pool::add_lanes() {
    for (size_t i = 0; i < sizes_.n_lanes; ++i) {
        lanes_.push_back(std::make_unique<Lane>(cells_, i, learned_, embeddings_));
    }
    begun_.assign(lanes_.size(), 0);
    goes_alone_.assign(lanes_.size(), false);
}

void Pool::require_empty() {
    for (const auto & lane : lanes_) {
        if (!lane->cached().empty()) {
            throw Error(MP_ERROR_ARGUMENT, "this needs an empty KV cache: reset the session first");
        }
    }
    if (is_shared()) {
        cells_->clear(); // of what was left behind
    }
}

size_t Pool::begin(size_t lane, std::vector<int32_t> prompt, llama_sampler * sampler, Speculation speculation,
                   int32_t max_tokens, bool reuse) {
    Lane::Start start{reuse};
    size_t n_common = common_prefix(lanes_[lane]->cached(), prompt) + least_shared;
    for (const auto & other : lanes_) {
        if (other == lanes_[lane]) {
            continue;
        }
        start.alone = start.alone && !other->goes_on();
        const size_t n = reuse && !has_states() ? common_prefix(other->cached(), prompt) : 0;
        if (n >= n_common) {
            n_common = n;
            start.other = &other->cache();
        }
    }
    begun_[lane] = ++n_begun_;
    goes_alone_[lane] = false;
    if (parking_.is_allowed()) {
        if (lanes_[lane]->cached().size() >= least_parked + common_prefix(lanes_[lane]->cached(), prompt)) {
            parking_.put({lanes_[lane]->cached(), lanes_[lane]->cache().save()});
        }
        if (reuse && parking_.most_common(prompt) >= n_common) {
            unpark(lane, prompt, n_common);
            start.other = lanes_[lane]->cached().empty() ? start.other : nullptr;
        }
    }
    return lanes_[lane]->begin(std::move(prompt), sampler, std::move(speculation), max_tokens, start);
}

// --- a pass -----------------------------------------------------------------------------------------

std::vector<Outcome> Pool::pass(const std::vector<size_t> & lanes) {
    std::vector<Outcome> outcomes(lanes.size());
    Parts parts = take_part(lanes, outcomes);
    if (is_shared() && !parts.empty()) {
        std::vector<size_t> kept;
        for (const Part & part : parts) {
            kept.push_back(part.i);
        }
        make_room(kept, sizes_.rows);
        for (const Part & part : parts) {
            if (part.lane->cached().empty() && parking_.most_common(part.lane->pending()) >= least_parked) {
                unpark(part.i, part.lane->pending(), least_parked);
                part.lane->skip_cached();
            }
        }
    }
    for (const size_t lane : lanes) {
        lanes_.at(lane)->start_pass();
    }
    lay_out_rows(parts, is_shared() ? std::min(sizes_.rows, cells_->n_free()) : sizes_.rows, sizes_.piece);
    for (Parts & some : group(parts)) {
        float * embd = embed(some);
        drop_failed(some);
        if (!some.empty() && !decode(some, embd)) {
            break;
        }
    }
    for (size_t i = 0; i < lanes.size(); ++i) {
        outcomes[i].pass = &lanes_.at(lanes[i])->report();
    }
    return outcomes;
}

const mp_pass & Pool::pass_alone(size_t lane, Lane::Phase phase) {
    if (lanes_[lane]->phase() != phase) {
        throw Error(MP_ERROR_ARGUMENT, phase == Lane::Phase::prefill ? "no prompt to decode: begin a generation first"
                                                                     : "nothing to continue: finish the prompt first");
    }
    const Outcome outcome = pass({lane})[0];
    if (outcome.error) {
        std::rethrow_exception(outcome.error);
    }
    return *outcome.pass;
}

// Those whose generation goes on and for which there is room, the oldest first.
Parts Pool::take_part(const std::vector<size_t> & lanes, std::vector<Outcome> & outcomes) {
    Parts parts;
    for (size_t i = 0; i < lanes.size(); ++i) {
        Lane & lane = *lanes_.at(lanes[i]);
        try {
            lane.check_goes_on();
        } catch (...) {
            outcomes[i].error = std::current_exception();
            continue;
        }
        if (!is_shared() || has_room_for(lanes[i])) {
            parts.push_back({lanes[i], &lane, &outcomes[i], goes_alone_[lanes[i]]});
        }
    }
    std::sort(parts.begin(), parts.end(), [this](const Part & a, const Part & b) { return begun_[a.i] < begun_[b.i]; });
    return parts;
}

// --- room -------------------------------------------------------------------------------------------

// Whether a lane may go on beside those that began before it. The oldest always may.
bool Pool::has_room_for(size_t lane) const {
    size_t n_wanted = lanes_[lane]->n_wanted();
    bool is_oldest = true;
    for (size_t i = 0; i < lanes_.size(); ++i) {
        if (begun_[i] < begun_[lane] && lanes_[i]->goes_on()) {
            n_wanted += lanes_[i]->n_wanted();
            is_oldest = false;
        }
    }
    return is_oldest || n_wanted + sizes_.rows <= context().n_ctx();
}

// Sees to so many free cells, if others than those kept can give them up. Whether there are as many then.
bool Pool::make_room(const std::vector<size_t> & kept, size_t n_cells) {
    if (cells_->n_free() >= n_cells) {
        return true;
    }
    const auto n_held = [this] {
        size_t n = 0;
        for (const auto & lane : lanes_) {
            n += lane->cached().size();
        }
        return n;
    };
    while (n_held() + n_cells > context().n_ctx()) {
        Lane * worst = find_worst(kept);
        if (worst == nullptr) {
            break;
        }
        vacate(*worst);
    }
    compact();
    return cells_->n_free() >= n_cells;
}

// Who gives its cells up first: the oldest of those that nobody generates in, then the youngest that has to wait. Null
// if there is none.
Lane * Pool::find_worst(const std::vector<size_t> & kept) {
    Lane * worst = nullptr;
    uint64_t worst_begun = 0;
    for (size_t i = 0; i < lanes_.size(); ++i) {
        Lane & lane = *lanes_[i];
        const bool is_kept = std::find(kept.begin(), kept.end(), i) != kept.end();
        if (lane.cached().empty() || is_kept || (lane.goes_on() && has_room_for(i))) {
            continue;
        }
        const bool goes_first = worst == nullptr || (worst->goes_on() && !lane.goes_on()) ||
                                (worst->goes_on() == lane.goes_on() && (begun_[i] < worst_begun) != lane.goes_on());
        if (goes_first) {
            worst = &lane;
            worst_begun = begun_[i];
        }
    }
    return worst;
}

void Pool::vacate(Lane & lane) {
    if (parking_.is_allowed() && lane.cached().size() >= least_parked) {
        parking_.put({lane.cached(), lane.cache().save()});
    }
    lane.leave_cells();
}

// Gives a lane the parked text that has most in common with this one, if there is room for it; else nothing changes.
// n_common: what the lane has in common with it already, at least.
void Pool::unpark(size_t lane, const std::vector<int32_t> & text, size_t n_common) {
    ParkedText parked = parking_.take(text);
    const size_t n = parked.tokens.size();
    if (n < n_common || !make_room({lane}, n + sizes_.rows)) {
        parking_.put(std::move(parked));
        return;
    }
    lanes_[lane]->cache().unpark(std::move(parked));
}

// Packs the cells of all lanes and forgets what was left behind.
void Pool::compact() {
    std::vector<std::vector<uint8_t>> states;
    for (const auto & lane : lanes_) {
        states.push_back(lane->cached().empty() ? std::vector<uint8_t>() : lane->cache().save());
    }
    cells_->clear();
    for (size_t i = 0; i < lanes_.size(); ++i) {
        if (!lanes_[i]->cached().empty()) {
            lanes_[i]->refill_cells(states[i]);
        }
    }
    ++n_compactions_;
}

// --- llama_decode -----------------------------------------------------------------------------------

// A block with masks is one of embeddings, [rows, n_embd_inp], and so are those beside it. Null if there is none.
float * Pool::embed(Parts & parts) {
    const auto has_masks = [](const Part & part) { return part.lane->block().has_masks(); };
    if (std::none_of(parts.begin(), parts.end(), has_masks)) {
        return nullptr;
    }
    const size_t width = context().n_embd_inp();
    size_t n_rows = 0;
    for (const Part & part : parts) {
        n_rows += part.lane->block().n_rows();
    }
    embd_.assign(n_rows * width, 0.0f);
    n_rows = 0;
    for (Part & part : parts) {
        try {
            part.lane->embed(embd_.data() + n_rows * width);
            n_rows += part.lane->block().n_rows();
        } catch (...) {
            part.fail();
        }
    }
    if (embedding_scale_ != 1.0f) {
        for (float & x : embd_) {
            x *= embedding_scale_;
        }
    }
    return embd_.data();
}

// All parts at once; if that fails each alone, so that what one has wrong is not the others' loss. False if none of the
// other rows laid out can be decoded now.
bool Pool::decode(Parts & parts, float * embd) {
    double decode_ms = 0.0;
    try {
        decode_ms = decode_rows(parts, embd);
    } catch (...) {
        if (is_shared() && has_states()) {
            start_over(parts);
            return false;
        }
        if (parts.size() == 1) {
            parts.front().fail();
            return true;
        }
        for (const Part & part : parts) {
            part.lane->undo();
        }
        for (const Part & part : parts) {
            Parts one{part};
            decode(one, embd == nullptr ? nullptr : embd + part.first_row * context().n_embd_inp());
        }
        return true;
    }
    take(parts, decode_ms);
    return true;
}

// In a catch clause of a decode with recurrent states, which are nobody's then, whoever took part: all lanes have their
// tokens decoded again. Those that have failed together go alone from now on.
void Pool::start_over(Parts & parts) {
    cells_->clear();
    if (parts.size() == 1) {
        parts.front().fail();
    }
    for (const Part & part : parts) {
        goes_alone_[part.i] = true;
    }
    for (const auto & lane : lanes_) {
        lane->leave_cells();
    }
}

// Returns milliseconds.
double Pool::decode_rows(Parts & parts, float * embd) {
    if (!is_shared()) {
        return context().decode(parts.front().lane->block(), embd);
    }
    const bool is_padded = needs_padding(parts);
    if (is_padded && has_states()) {
        parts.front().lane->fill(2);
    }
    Block joined;
    bool has_masks = false;
    for (Part & part : parts) {
        part.first_row = joined.n_rows();
        joined.append(part.lane->block(), part.lane->cache().first_id());
        has_masks = has_masks || part.lane->block().has_masks();
    }
    const size_t n_rows = joined.n_rows();
    const bool has_spare = is_padded && !has_states();
    if (has_spare) {
        joined.add_row(joined.token[0], 0, false, {cells_->spare_id()});
    }
    double decode_ms = 0.0;
    try {
        decode_ms = context().decode(joined, has_masks ? embd : nullptr);
        splits_one_row_ = cpu_kernels::ggml_attends();
    } catch (...) {
        if (has_spare) {
            cells_->cut(cells_->spare_id(), 0);
        }
        throw;
    }
    if (has_spare) {
        cells_->cut(cells_->spare_id(), 0);
    }
    cells_->add_used(n_rows);
    return decode_ms;
}

// Whether these parts are one row that would be computed otherwise than beside another.
bool Pool::needs_padding(const Parts & parts) const {
    return parts.size() == 1 && parts.front().lane->block().n_rows() == 1 && splits_one_row_ && sizes_.pad_from > 0 &&
           cells_->n_used() >= sizes_.pad_from && cells_->n_free() > 1;
}

void Pool::take(Parts & parts, double decode_ms) {
    size_t n_rows = 0;
    for (Part & part : parts) {
        const bool is_last = &part == &parts.back();
        const size_t n = part.lane->block().n_rows();
        n_rows += n;
        try {
            part.lane->take(part.first_row, decode_ms, is_last);
        } catch (...) {
            part.outcome->error = std::current_exception();
            part.is_out = true;
            if (is_last && is_shared() && !has_states()) {
                cells_->free_last(n);
            }
        }
    }
    observe_costs(parts, n_rows, decode_ms);
}

} // namespace mp
