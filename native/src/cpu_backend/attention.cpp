// FLASH_ATTN_EXT: attention over a cache of keys and values. Checks tensors and shares out queries; arithmetic is
// native/kernels'.
#include "cpu_backend/ops.h"

#include <algorithm>

namespace mp::cpu_kernels::attention {

namespace {

constexpr int cap_at = 2;        // where attention's parameters have the cap; the scale comes first
constexpr int most_queried = 63; // rows; from 64 on ggml attends in tiles, which round otherwise

kernels::CacheType cache_type(int32_t type) {
    return type == ggml::f16 ? kernels::CacheType::f16 : kernels::CacheType::q8_0;
}

size_t block_bytes(const State & s, int32_t type) { return s.api.ggml_row_size(type, type == ggml::f16 ? 1 : 32); }

kernels::Attend find(const State & s, const ggml::Tensor & q, const ggml::Tensor & k) {
    return kernels::find_attention(static_cast<int>(q.ne[0]), cache_type(k.type), s.instructions, s.wide_floats);
}

// Rows one after the other that see nearly the same keys, as those of one text do: these are read once for all of them.
// Rows of different texts are apart.
class RowGroups {
public:
    RowGroups(const ggml::Tensor * mask, int64_t n_rows, int64_t n_keys) {
        int64_t first = 0;
        for (int64_t row = 1; mask != nullptr && row < n_rows; ++row) {
            if (!are_alike(mask_of(*mask, first), mask_of(*mask, row), n_keys)) {
                ends_[n_++] = first = row;
            }
        }
        ends_[n_++] = n_rows;
    }

    // In how many parts queries are attended to, of at most so many of a group; n_sharing: queries of each row.
    int64_t n_parts(int64_t wanted, int64_t n_sharing) const {
        int64_t n = 0;
        for (int g = 0; g < n_; ++g) {
            n += n_parts_of(g, wanted, n_sharing);
        }
        return n;
    }

    struct Part {
        int64_t first, last; // queries, those of the same row one after the other
    };
    Part part(int64_t i, int64_t wanted, int64_t n_sharing) const {
        int g = 0;
        for (; i >= n_parts_of(g, wanted, n_sharing); ++g) {
            i -= n_parts_of(g, wanted, n_sharing);
        }
        const int64_t start = n_sharing * begin_of(g);
        const int64_t n_queries = n_sharing * ends_[g] - start;
        const int64_t n = n_parts_of(g, wanted, n_sharing);
        return {start + n_queries * i / n, start + n_queries * (i + 1) / n};
    }

private:
    static const uint16_t * mask_of(const ggml::Tensor & mask, int64_t row) {
        return reinterpret_cast<const uint16_t *>(row_of(mask, row, 0));
    }

    static bool are_alike(const uint16_t * a, const uint16_t * b, int64_t n_keys) {
        int32_t n_both = 0;
        int32_t n_either = 0;
        for (int64_t i = 0; i < n_keys; ++i) {
            n_both += static_cast<int32_t>(a[i] != kernels::hidden) & static_cast<int32_t>(b[i] != kernels::hidden);
            n_either += static_cast<int32_t>(a[i] != kernels::hidden) | static_cast<int32_t>(b[i] != kernels::hidden);
        }
        return 2 * n_both >= n_either;
    }

    int64_t begin_of(int g) const { return g == 0 ? 0 : ends_[g - 1]; }
    int64_t n_parts_of(int g, int64_t wanted, int64_t n_sharing) const {
        return (n_sharing * (ends_[g] - begin_of(g)) + wanted - 1) / wanted;
    }

    int64_t ends_[most_queried]; // behind the last row of each
    int n_ = 0;
};

} // namespace

bool is_there(const State & s, int32_t type) {
    constexpr int usual_head = 64;
    return kernels::find_attention(usual_head, cache_type(type), s.instructions, s.wide_floats) != nullptr;
}

int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed) {
    const ggml::Tensor & q = *op.src[0];
    const ggml::Tensor & k = *op.src[1];
    const ggml::Tensor & v = *op.src[2];
    const ggml::Tensor * mask = op.src[3];
    const ggml::Tensor * sinks = op.src[4];
    constexpr int alibi_at = 1;
    const bool types = q.type == ggml::f32 && (k.type == ggml::f16 || k.type == ggml::q8_0) && k.type == v.type &&
                       (mask == nullptr || mask->type == ggml::f16) &&
                       (sinks == nullptr || (sinks->type == ggml::f32 && in_host_memory(s, *sinks)));
    if (!types || !in_host_memory(s, k) || !in_host_memory(s, v)) {
        return -1;
    }
    const bool shapes = q.ne[1] >= 1 && q.ne[1] <= most_queried && q.ne[3] == 1 && k.ne[3] == 1 && v.ne[3] == 1 &&
                        k.ne[0] == q.ne[0] && v.ne[0] == q.ne[0] && k.ne[2] == v.ne[2] && k.ne[2] >= 1 &&
                        q.ne[2] % k.ne[2] == 0;
    const bool rows = q.nb[0] == sizeof(float) && op.nb[0] == sizeof(float) && k.nb[0] == block_bytes(s, k.type) &&
                      v.nb[0] == block_bytes(s, k.type);
    if (!shapes || !rows || parameter(op, alibi_at) != 0.0f) {
        return -1;
    }
    const bool capped = parameter(op, cap_at) != 0.0f;
    for (size_t i = 0; i < s.n_entries; ++i) {
        const Entry & entry = s.entries[i];
        const bool is_allowed = (allowed >> i & 1u) != 0;
        if (is_allowed && entry.is_attention && entry.type == k.type && entry.capped == capped) {
            return find(s, q, k) != nullptr ? static_cast<int>(i) : -1;
        }
    }
    return -1;
}

// Queries that share a head of the cache are attended to together, some to each thread.
void compute(const State & s, const ggml::ComputeParams & params, ggml::Tensor & op) {
    const ggml::Tensor & q = *op.src[0];
    const ggml::Tensor & k = *op.src[1];
    const ggml::Tensor & v = *op.src[2];
    const ggml::Tensor * mask = op.src[3];
    const ggml::Tensor * sinks = op.src[4];
    const int64_t size = q.ne[0];
    const int64_t sharing = q.ne[2] / k.ne[2]; // query heads for each head of the cache
    const int64_t n_queries = sharing * q.ne[1];
    const int64_t wanted = std::clamp<int64_t>(n_queries * k.ne[2] / (2 * params.nth), 1, kernels::most_queries);
    const RowGroups groups(mask, q.ne[1], k.ne[1]);
    const int64_t n_parts = groups.n_parts(wanted, sharing);
    const kernels::Attend kernel = find(s, q, k);
    const auto from_float = s.api.ggml_get_type_traits_cpu(k.type)->from_float;
    const size_t query_bytes = s.api.ggml_row_size(k.type, size);
    const float cap = parameter(op, cap_at);
    const float scale = cap == 0.0f ? parameter(op, 0) : parameter(op, 0) / cap;

    start_chunks(s, params);
    for (int64_t at = params.ith; at < n_parts * k.ne[2]; at = next_chunk(s, params)) {
        const int64_t head = at / n_parts;
        const auto [first, last] = groups.part(at % n_parts, wanted, sharing);
        alignas(64) char queries[kernels::most_queries * kernels::largest_head * sizeof(uint16_t)];
        const uint16_t * masks[kernels::most_queries];
        float shares[kernels::most_queries];
        float * out[kernels::most_queries];
        for (int64_t i = first; i < last; ++i) {
            const int64_t row = i / sharing;
            const int64_t query_head = head * sharing + i % sharing;
            from_float(reinterpret_cast<const float *>(row_of(q, row, query_head)),
                       queries + static_cast<size_t>(i - first) * query_bytes, size);
            if (mask != nullptr) {
                masks[i - first] = reinterpret_cast<const uint16_t *>(row_of(*mask, row, query_head % mask->ne[2]));
            }
            if (sinks != nullptr) {
                shares[i - first] = static_cast<const float *>(sinks->data)[query_head];
            }
            out[i - first] = reinterpret_cast<float *>(static_cast<char *>(op.data) +
                                                       static_cast<size_t>(query_head + row * op.ne[1]) * op.nb[1]);
        }
        kernel({{row_of(k, 0, head), k.nb[1], row_of(v, 0, head), v.nb[1], k.ne[1]},
                queries,
                static_cast<int>(last - first),
                mask == nullptr ? nullptr : masks,
                scale,
                cap,
                sinks == nullptr ? nullptr : shares,
                out});
    }
}

} // namespace mp::cpu_kernels::attention
