#include "abi.h"
#include "cpu_backend/cpu_kernels.h"

#include <algorithm>
#include <chrono>

using namespace mp::abi;

struct mp_pool {
    std::shared_ptr<mp::Pool> pool;
    int kernels = -1;                // as mp::cpu_kernels::set_thread
    std::vector<std::string> errors; // of each lane, the latest
};

namespace {

mp::PoolSizes from_c(const mp_pool_sizes & in) {
    require(in.n_lanes >= 1 && in.n_ids >= 1 && in.rows >= 1 && in.piece >= 1 && in.pad_from >= 0,
            "a pool's sizes must be positive");
    require(in.n_lanes <= 256 && in.n_ids <= 256, "a context has no more than 256 sequences");
    return {static_cast<size_t>(in.n_lanes), static_cast<size_t>(in.n_ids), static_cast<size_t>(in.rows),
            static_cast<size_t>(in.piece), static_cast<size_t>(in.pad_from)};
}

bool has_lane(const mp_pool * pool, int32_t lane) {
    return lane >= 0 && static_cast<size_t>(lane) < pool->pool->n_lanes();
}

std::vector<size_t> lanes_of(const mp_pool * pool, const int32_t * lanes, size_t n) {
    std::vector<size_t> found;
    for (size_t i = 0; i < n; ++i) {
        require(has_lane(pool, lanes[i]), "there is no such lane");
        require(std::find(lanes, lanes + i, lanes[i]) == lanes + i, "a lane is named twice");
        found.push_back(static_cast<size_t>(lanes[i]));
    }
    return found;
}

} // namespace

mp_pool * mp_pool_init(llama_context * ctx, mp_embeddings * embeddings, float embedding_scale,
                       const mp_pool_sizes * sizes) {
    return guarded_new<mp_pool>([&] {
        require(ctx != nullptr && sizes != nullptr, "ctx and sizes must not be NULL");
        auto pool = std::make_unique<mp_pool>();
        pool->pool = std::make_shared<mp::Pool>(ctx, embeddings == nullptr ? nullptr : &embeddings->rows,
                                                embedding_scale, from_c(*sizes));
        pool->errors.resize(pool->pool->n_lanes());
        return pool.release();
    });
}

void mp_pool_free(mp_pool * pool) { delete pool; }

mp_session * mp_pool_lane(mp_pool * pool, int32_t lane) {
    return guarded_new<mp_session>([&] {
        require(pool != nullptr && has_lane(pool, lane), "there is no such lane");
        return new mp_session(pool->pool, static_cast<size_t>(lane));
    });
}

int mp_pool_set_kernels(mp_pool * pool, int32_t use) {
    return guarded([&] {
        require(pool != nullptr && use >= -1 && use <= 1, "pool must not be NULL, use is 1, 0 or -1");
        pool->kernels = use;
    });
}

int mp_pool_step(mp_pool * pool, const int32_t * lanes, size_t n, mp_pass * passes, int32_t * statuses) {
    return guarded([&] {
        require(pool != nullptr && lanes != nullptr && passes != nullptr && statuses != nullptr,
                "arguments must not be NULL");
        const std::vector<size_t> which = lanes_of(pool, lanes, n);
        const mp::cpu_kernels::Use use(pool->kernels);
        const auto start = std::chrono::steady_clock::now();
        const std::vector<mp::Outcome> outcomes = pool->pool->pass(which);
        const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
        for (size_t i = 0; i < n; ++i) {
            passes[i] = *outcomes[i].pass;
            passes[i].total_ms = ms;
            statuses[i] = MP_OK;
            if (outcomes[i].error) {
                statuses[i] = guarded([&] { std::rethrow_exception(outcomes[i].error); });
                pool->errors[which[i]] = mp_last_error();
            }
        }
    });
}

int mp_pool_park(mp_pool * pool, uint64_t n_bytes) {
    return guarded([&] {
        require(pool != nullptr, "pool must not be NULL");
        pool->pool->park(static_cast<size_t>(n_bytes));
    });
}

const char * mp_pool_error(const mp_pool * pool, int32_t lane) {
    return pool != nullptr && has_lane(pool, lane) ? pool->errors[lane].c_str() : "";
}

int mp_pool_get_figures(const mp_pool * pool, mp_pool_figures * figures) {
    return guarded([&] {
        require(pool != nullptr && figures != nullptr, "pool and figures must not be NULL");
        figures->n_cells = static_cast<int64_t>(pool->pool->context().n_ctx());
        figures->n_used = static_cast<int64_t>(pool->pool->cells().n_used());
        figures->n_compactions = pool->pool->n_compactions();
        figures->n_parked = static_cast<int64_t>(pool->pool->parking().size());
        figures->parked_bytes = static_cast<int64_t>(pool->pool->parking().n_bytes());
    });
}
