#include "cpu_kernels.h"

#include "error.h"
#include "ggml_api.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

namespace mp::cpu_kernels {

namespace {

using kernels::Activations;
using kernels::Kernel;
using kernels::Weights;

constexpr const char * function_names[] = {
#define MP_NAME(result, name, parameters) #name,
    MP_GGML_FUNCTIONS(MP_NAME)
#undef MP_NAME
};

struct Known {
    Weights weights;
    int32_t type;
    bool repacked;
};

constexpr Known known[] = {
    {Weights::q4_0, ggml::q4_0, false}, {Weights::q4_0_repacked, ggml::q4_0, true},
    {Weights::q4_1, ggml::q4_1, false}, {Weights::q5_0, ggml::q5_0, false},
    {Weights::q8_0, ggml::q8_0, false}, {Weights::q8_0_repacked, ggml::q8_0, true},
    {Weights::q4_k, ggml::q4_k, false}, {Weights::q4_k_repacked, ggml::q4_k, true},
    {Weights::q6_k, ggml::q6_k, false}, {Weights::q6_k_repacked, ggml::q6_k, true},
    {Weights::f16, ggml::f16, false},   {Weights::f32, ggml::f32, false},
};

int32_t type_of(Activations activations) {
    switch (activations) {
    case Activations::q8_0: return ggml::q8_0;
    case Activations::q8_1: return ggml::q8_1;
    case Activations::q8_k: return ggml::q8_k;
    case Activations::f16: return ggml::f16;
    case Activations::f32: return ggml::f32;
    }
    return ggml::f32;
}

// All of it is set once by attach, but what is atomic. It outlives every graph, so it is never freed.
struct State {
    ggml::Api api;
    int32_t op_mul_mat = -1;
    int32_t op_attention = -1;
    ggml::BufferType * repack = nullptr;
    ggml::ExtraBufferType * stock = nullptr; // the context that repack had
    bool wide_floats = false;
    kernels::Instructions instructions = kernels::processor_instructions();
    Entry entries[most_entries] = {};
    size_t n_entries = 0;
    std::atomic<uint32_t> allowed{0};
    std::atomic<bool> use_by_default{false};
    std::atomic<int64_t> n_used[most_entries] = {};
};

State & state() {
    static State * const only = new State;
    return *only;
}

// What attention says of itself in the list of kernels: heads are multiples of that many elements.
constexpr Kernel attention_kernel = {Activations::f16, 64, 1, 1, 1, nullptr, nullptr, nullptr};

std::mutex attaching;
thread_local int use_on_this_thread = -1;

// The kernels of the present instruction set, so that indices have no gaps.
void list_entries(State & s) {
    s.allowed = 0;
    s.n_entries = 0;
    for (const Known & one : known) {
        for (const bool fused : {false, true}) {
            if (const Kernel * kernel = kernels::find(one.weights, s.instructions, s.wide_floats, fused)) {
                s.entries[s.n_entries++] = {kernels::name_of(one.weights, fused), kernel, one.type, one.repacked};
            }
        }
    }
    if (kernels::find_attention(attention_kernel.k_multiple, s.instructions, s.wide_floats) != nullptr) {
        s.entries[s.n_entries++] = {"attention f16", &attention_kernel, ggml::f16, false};
    }
}

bool is_attention(const Entry & entry) { return entry.kernel == &attention_kernel; }

// --- which products are ours ------------------------------------------------------------------------

// In the last of the parameters, which products do not have.
constexpr int mark_at = 15;
constexpr int32_t mark_base = 0x6d700000;

bool is_plain_matrix(const ggml::Tensor & tensor) {
    return tensor.ne[2] == 1 && tensor.ne[3] == 1 && tensor.data != nullptr;
}

// The first of the allowed entries for a product, or -1. Weights are seen by their buffer: repacked ones, or plain ones
// in host memory.
int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    const int64_t rows = x.ne[1];
    constexpr int hint_at = 1; // says that the weights are a known transform
    if (rows < 1 || rows > most_rows || x.type != ggml::f32 || !is_plain_matrix(w) || !is_plain_matrix(x) ||
        x.nb[0] != sizeof(float) || op.nb[0] != sizeof(float) || op.op_params[hint_at] != 0) {
        return -1;
    }
    const ggml::Buffer * buffer = w.view_src != nullptr ? w.view_src->buffer : w.buffer;
    if (buffer == nullptr) {
        return -1;
    }
    ggml::BufferType * type = s.api.ggml_backend_buffer_get_type(const_cast<ggml::Buffer *>(buffer));
    const bool repacked = type == s.repack;
    if (!repacked && !s.api.ggml_backend_buft_is_host(type)) {
        return -1;
    }
    for (size_t i = 0; i < s.n_entries; ++i) {
        const Entry & entry = s.entries[i];
        const bool is_allowed = (allowed >> i & 1u) != 0;
        if (is_allowed && entry.type == w.type && entry.repacked == repacked && !is_attention(entry)) {
            const Kernel & kernel = *entry.kernel;
            const bool fits = w.ne[0] > 0 && w.ne[1] > 0 && w.ne[0] % kernel.k_multiple == 0 &&
                              w.ne[1] % kernel.n_multiple == 0 && rows >= kernel.fewest_rows;
            const bool rows_follow = w.nb[1] == s.api.ggml_row_size(w.type, w.ne[0]);
            const bool is_view_of_repacked = repacked && w.view_src != nullptr;
            return fits && rows_follow && !is_view_of_repacked ? static_cast<int>(i) : -1;
        }
    }
    return -1;
}

bool in_host_memory(const State & s, const ggml::Tensor & tensor) {
    const ggml::Buffer * buffer = tensor.view_src != nullptr ? tensor.view_src->buffer : tensor.buffer;
    return buffer != nullptr &&
           s.api.ggml_backend_buft_is_host(s.api.ggml_backend_buffer_get_type(const_cast<ggml::Buffer *>(buffer)));
}

float parameter(const ggml::Tensor & op, int at) {
    float value;
    std::memcpy(&value, &op.op_params[at], sizeof value);
    return value;
}

// The entry for an attention over a cache of half floats, or -1.
int entry_for_attention(const State & s, const ggml::Tensor & op) {
    const ggml::Tensor & q = *op.src[0];
    const ggml::Tensor & k = *op.src[1];
    const ggml::Tensor & v = *op.src[2];
    const ggml::Tensor * mask = op.src[3];
    const ggml::Tensor * sinks = op.src[4];
    constexpr int bias_at = 1; // of ALiBi, and behind it where scores are capped
    constexpr int cap_at = 2;
    const bool is_plain = sinks == nullptr && parameter(op, bias_at) == 0.0f && parameter(op, cap_at) == 0.0f;
    const bool types = q.type == ggml::f32 && k.type == ggml::f16 && v.type == ggml::f16 &&
                       (mask == nullptr || mask->type == ggml::f16);
    if (!is_plain || !types || q.ne[1] < 1 || q.ne[1] > most_rows || q.ne[3] != 1 || k.ne[3] != 1 || v.ne[3] != 1 ||
        k.ne[0] != q.ne[0] || v.ne[0] != q.ne[0] || k.ne[2] != v.ne[2] || k.ne[2] < 1 || q.ne[2] % k.ne[2] != 0 ||
        q.nb[0] != sizeof(float) || k.nb[0] != sizeof(uint16_t) || v.nb[0] != sizeof(uint16_t) ||
        op.nb[0] != sizeof(float) ||
        kernels::find_attention(static_cast<int>(q.ne[0]), s.instructions, s.wide_floats) == nullptr ||
        !in_host_memory(s, k) || !in_host_memory(s, v)) {
        return -1;
    }
    return static_cast<int>(s.n_entries) - 1; // the last of them
}

int claim(const State & s, const ggml::Tensor & op) {
    const uint32_t allowed = s.allowed.load(std::memory_order_relaxed);
    const bool by_default = s.use_by_default.load(std::memory_order_relaxed);
    if (allowed == 0 || !(use_on_this_thread < 0 ? by_default : use_on_this_thread > 0)) {
        return -1;
    }
    if (use_on_this_thread == attention_alone && op.op != s.op_attention) {
        return -1;
    }
    const int index = op.op == s.op_attention ? entry_for_attention(s, op) : entry_for(s, op, allowed);
    return index >= 0 && (allowed >> index & 1u) != 0 ? index : -1;
}

int marked(const State & s, const ggml::Tensor & op) {
    const int32_t index = op.op_params[mark_at] - mark_base - 1;
    return index >= 0 && index < static_cast<int32_t>(s.n_entries) ? index : -1;
}

// --- one product ------------------------------------------------------------------------------------

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Work memory: a quantized row for each thread, then the packed rows.
size_t quantized_bytes(const State & s, const Kernel & kernel, int64_t k) {
    return aligned(s.api.ggml_row_size(type_of(kernel.activations), k));
}

size_t work_bytes(const State & s, const Kernel & kernel, int64_t k, int n_rows, int n_threads) {
    const size_t bytes =
        quantized_bytes(s, kernel, k) * static_cast<size_t>(n_threads) + kernel.packed_bytes(k, n_rows);
    // Where ggml's own kernels take over after all, they need all rows quantized.
    return 64 + std::max(bytes, quantized_bytes(s, kernel, k) * static_cast<size_t>(n_rows));
}

// Ranges of columns that threads take one after another; a whole cache line of results at least.
int64_t columns_per_chunk(const Kernel & kernel, int64_t n_columns, int n_threads) {
    if (n_threads == 1) {
        return n_columns;
    }
    const int64_t unit =
        kernel.range_multiple % 2 == 0 ? std::max(16, kernel.range_multiple) : 16 * kernel.range_multiple;
    const int64_t wanted = (n_columns + 4 * n_threads - 1) / (4 * n_threads);
    return (wanted + unit - 1) / unit * unit;
}

void compute(State & s, const Kernel & kernel, const ggml::ComputeParams & params, ggml::Tensor & op) {
    const ggml::Tensor & w = *op.src[0];
    const ggml::Tensor & x = *op.src[1];
    const int64_t k = w.ne[0];
    const int64_t n_columns = w.ne[1];
    const int n_rows = static_cast<int>(x.ne[1]);
    const int32_t quantized_type = type_of(kernel.activations);
    const auto from_float = s.api.ggml_get_type_traits_cpu(quantized_type)->from_float;
    const size_t row_bytes = quantized_bytes(s, kernel, k);

    char * work = reinterpret_cast<char *>(aligned(reinterpret_cast<uintptr_t>(params.wdata)));
    char * quantized = work + static_cast<size_t>(params.ith) * row_bytes;
    char * packed = work + static_cast<size_t>(params.nth) * row_bytes;
    const int64_t n_blocks = k / kernel.k_multiple;
    const int64_t first = n_blocks * params.ith / params.nth * kernel.k_multiple;
    const int64_t last = n_blocks * (params.ith + 1) / params.nth * kernel.k_multiple;
    for (int row = 0; row < n_rows && first < last; ++row) {
        const float * from =
            reinterpret_cast<const float *>(static_cast<const char *>(x.data) + static_cast<size_t>(row) * x.nb[1]) +
            first;
        const void * piece = from;
        if (quantized_type != ggml::f32) {
            from_float(from, quantized, last - first);
            piece = quantized;
        }
        kernel.pack(piece, k, first, last, row, n_rows, packed);
    }
    if (params.ith == 0) {
        s.api.ggml_threadpool_chunk_set(params.threadpool, params.nth);
    }
    s.api.ggml_barrier(params.threadpool);

    const int64_t chunk = columns_per_chunk(kernel, n_columns, params.nth);
    for (int64_t at = params.ith; at * chunk < n_columns; at = s.api.ggml_threadpool_chunk_add(params.threadpool, 1)) {
        kernel.multiply(w.data, k, at * chunk, std::min(n_columns, (at + 1) * chunk), packed, n_rows,
                        static_cast<float *>(op.data), op.nb[1] / sizeof(float));
    }
}

// --- one attention ----------------------------------------------------------------------------------

const char * row_of(const ggml::Tensor & tensor, int64_t i1, int64_t i2) {
    return static_cast<const char *>(tensor.data) + static_cast<size_t>(i1) * tensor.nb[1] +
           static_cast<size_t>(i2) * tensor.nb[2];
}

// Queries that share a head of the cache are attended to together, some to each thread.
void attend(State & s, const ggml::ComputeParams & params, ggml::Tensor & op) {
    const ggml::Tensor & q = *op.src[0];
    const ggml::Tensor & k = *op.src[1];
    const ggml::Tensor & v = *op.src[2];
    const ggml::Tensor * mask = op.src[3];
    constexpr int largest_head = 128;
    const int64_t size = q.ne[0];
    const int64_t n_rows = q.ne[1];
    const int64_t sharing = q.ne[2] / k.ne[2]; // query heads for each head of the cache
    const int64_t n_queries = sharing * n_rows;
    const int64_t wanted = std::clamp<int64_t>(n_queries * k.ne[2] / (2 * params.nth), 1, kernels::most_queries);
    const int64_t n_parts = (n_queries + wanted - 1) / wanted;
    const kernels::Attend kernel = kernels::find_attention(static_cast<int>(size), s.instructions, s.wide_floats);
    const auto from_float = s.api.ggml_get_type_traits_cpu(ggml::f16)->from_float;
    const float scale = parameter(op, 0);

    if (params.ith == 0) {
        s.api.ggml_threadpool_chunk_set(params.threadpool, params.nth);
    }
    s.api.ggml_barrier(params.threadpool);
    for (int64_t at = params.ith; at < n_parts * k.ne[2]; at = s.api.ggml_threadpool_chunk_add(params.threadpool, 1)) {
        const int64_t head = at / n_parts;
        const int64_t first = n_queries * (at % n_parts) / n_parts;
        const int64_t last = n_queries * (at % n_parts + 1) / n_parts;
        alignas(64) uint16_t queries[kernels::most_queries * largest_head];
        const uint16_t * masks[kernels::most_queries];
        float * out[kernels::most_queries];
        for (int64_t i = first; i < last; ++i) {
            const int64_t row = i / sharing;
            const int64_t query_head = head * sharing + i % sharing;
            from_float(reinterpret_cast<const float *>(row_of(q, row, query_head)), queries + (i - first) * size, size);
            if (mask != nullptr) {
                masks[i - first] = reinterpret_cast<const uint16_t *>(row_of(*mask, row, query_head % mask->ne[2]));
            }
            out[i - first] = reinterpret_cast<float *>(static_cast<char *>(op.data) +
                                                       static_cast<size_t>(query_head + row * op.ne[1]) * op.nb[1]);
        }
        const kernels::HeadCache cache = {
            reinterpret_cast<const uint16_t *>(row_of(k, 0, head)), k.nb[1] / sizeof(uint16_t),
            reinterpret_cast<const uint16_t *>(row_of(v, 0, head)), v.nb[1] / sizeof(uint16_t), k.ne[1]};
        kernel(cache, queries, mask == nullptr ? nullptr : masks, static_cast<int>(last - first), scale, out);
    }
}

// --- in ggml's place --------------------------------------------------------------------------------

int claim_and_mark(const State & s, const ggml::Tensor * op) {
    const int index = claim(s, *op);
    const_cast<ggml::Tensor *>(op)->op_params[mark_at] = index < 0 ? 0 : mark_base + 1 + index;
    return index;
}

void count(State & s, int index, const ggml::ComputeParams & params) {
    if (params.ith == 0) {
        s.n_used[index].fetch_add(1, std::memory_order_relaxed);
    }
}

// What is left to ggml here has no traits of its own.
struct Attentions final : ggml::TensorTraits {
    bool work_size(int, const ggml::Tensor * op, size_t &) override {
        claim_and_mark(state(), op);
        return false; // ggml's own work memory, so that it can take over
    }

    bool compute_forward(ggml::ComputeParams * params, ggml::Tensor * op) override {
        State & s = state();
        const int index = marked(s, *op);
        if (index < 0 || params->use_ref) {
            return false;
        }
        attend(s, *params, *op);
        count(s, index, *params);
        return true;
    }
};

struct Products final : ggml::TensorTraits {
    bool work_size(int n_threads, const ggml::Tensor * op, size_t & size) override {
        State & s = state();
        const int index = claim_and_mark(s, op);
        if (index >= 0) {
            size = work_bytes(s, *s.entries[index].kernel, op->src[0]->ne[0], static_cast<int>(op->src[1]->ne[1]),
                              n_threads);
            return true;
        }
        ggml::TensorTraits * stock = s.stock->get_tensor_traits(op);
        return stock != nullptr && stock->work_size(n_threads, op, size);
    }

    bool compute_forward(ggml::ComputeParams * params, ggml::Tensor * op) override {
        State & s = state();
        const int index = marked(s, *op);
        if (index >= 0 && !params->use_ref) {
            compute(s, *s.entries[index].kernel, *params, *op);
            count(s, index, *params);
            return true;
        }
        ggml::TensorTraits * stock = s.stock->get_tensor_traits(op);
        return stock != nullptr && stock->compute_forward(params, op);
    }
};

struct Context final : ggml::ExtraBufferType {
    bool supports_op(ggml::Device * device, const ggml::Tensor * op) override {
        return state().stock->supports_op(device, op);
    }

    ggml::TensorTraits * get_tensor_traits(const ggml::Tensor * op) override {
        static Products * const products = new Products;
        static Attentions * const attentions = new Attentions;
        if (op->op == state().op_attention) {
            return attentions;
        }
        return op->op == state().op_mul_mat ? products : state().stock->get_tensor_traits(op);
    }
};

// --- getting in -------------------------------------------------------------------------------------

ggml::Api table_from(const char * const * names, void * const * addresses, size_t n) {
    std::unordered_map<std::string, void *> by_name;
    for (size_t i = 0; i < n; ++i) {
        by_name[names[i]] = addresses[i];
    }
    ggml::Api api;
    std::string missing;
    using namespace ggml;
#define MP_TAKE(result, name, parameters)                                                                              \
    if (const auto found = by_name.find(#name); found != by_name.end() && found->second != nullptr) {                  \
        api.name = reinterpret_cast<result(*) parameters>(found->second);                                              \
    } else {                                                                                                           \
        missing += missing.empty() ? #name : ", " #name;                                                               \
    }
    MP_GGML_FUNCTIONS(MP_TAKE)
#undef MP_TAKE
    if (!missing.empty()) {
        throw Error(MP_ERROR_BINDING, "ggml lacks " + missing);
    }
    return api;
}

int32_t find_op(const ggml::Api & api, const char * name) {
    constexpr int32_t most = 80; // operations of every version are more
    for (int32_t op = 0; op < most; ++op) {
        if (std::strcmp(api.ggml_op_name(op), name) == 0) {
            return op;
        }
    }
    throw Error(MP_ERROR_BINDING,
                std::string("ggml has no operation ") + name + " among its first " + std::to_string(most));
}

ggml::BufferType * find_repack(const ggml::Api & api) {
    ggml::Device * device = api.ggml_backend_dev_by_type(ggml::device_type_cpu);
    if (device == nullptr) {
        throw Error(MP_ERROR_BINDING, "ggml has no CPU backend");
    }
    void * list = api.ggml_backend_reg_get_proc_address(api.ggml_backend_dev_backend_reg(device),
                                                        "ggml_backend_dev_get_extra_bufts");
    if (list == nullptr) {
        throw Error(MP_ERROR_BINDING, "ggml's CPU backend has no extra buffer types");
    }
    using List = ggml::BufferType ** (*)(ggml::Device *);
    for (ggml::BufferType ** type = reinterpret_cast<List>(list)(device); *type != nullptr; ++type) {
        if (std::strcmp(api.ggml_backend_buft_name(*type), "CPU_REPACK") == 0) {
            if ((*type)->device != device || (*type)->context == nullptr) {
                throw Error(MP_ERROR_BINDING, "ggml's buffer types are laid out differently");
            }
            return *type;
        }
    }
    throw Error(MP_ERROR_BINDING, "ggml was built without repacked weights (GGML_CPU_REPACK)");
}

// On ARM, what ggml was built for decides how it lays out weights and adds up products.
kernels::Instructions those_of(const ggml::Api & api, kernels::Instructions instructions) {
    using kernels::Instructions;
    if (instructions == Instructions::neon_i8mm && api.ggml_cpu_has_matmul_int8() == 0) {
        instructions = Instructions::neon_dotprod;
    }
    const bool needs_dotprod = instructions == Instructions::neon_dotprod || instructions == Instructions::neon_i8mm;
    return needs_dotprod && api.ggml_cpu_has_dotprod() == 0 ? Instructions::none : instructions;
}

} // namespace

const char * required_function(size_t index) {
    return index < sizeof function_names / sizeof *function_names ? function_names[index] : nullptr;
}

void attach(const char * const * names, void * const * addresses, size_t n) {
    const std::lock_guard<std::mutex> lock(attaching);
    State & s = state();
    if (s.stock != nullptr) {
        return;
    }
    const ggml::Api api = table_from(names, addresses, n);
    const size_t expected = sizeof(ggml::Object) + sizeof(ggml::Tensor);
    if (api.ggml_tensor_overhead() != expected) {
        throw Error(MP_ERROR_BINDING, "a ggml tensor takes " + std::to_string(api.ggml_tensor_overhead()) +
                                          " bytes, expected " + std::to_string(expected));
    }
    ggml::BufferType * repack = find_repack(api);
    s.op_mul_mat = find_op(api, "MUL_MAT");
    s.op_attention = find_op(api, "FLASH_ATTN_EXT");
    s.api = api;
    s.wide_floats = api.ggml_cpu_has_avx512() != 0;
    s.instructions = those_of(api, s.instructions);
    list_entries(s);
    s.repack = repack;
    s.stock = repack->context;
    // Graphs that are being computed see the one or the other, which do the same before a product is marked.
    repack->context.store(new Context, std::memory_order_release);
}

void limit_instructions(const char * name) {
    const std::lock_guard<std::mutex> lock(attaching);
    using kernels::Instructions;
    for (const Instructions one : {Instructions::none, Instructions::avx2, Instructions::avx2_vnni,
                                   Instructions::avx512_vnni, Instructions::neon_dotprod, Instructions::neon_i8mm}) {
        if (std::strcmp(kernels::name_of(one), name) == 0 && kernels::processor_has(one)) {
            state().instructions = one;
            list_entries(state());
            return;
        }
    }
    throw Error(MP_ERROR_ARGUMENT, "this processor has no instructions called \"" + std::string(name) +
                                       "\"; it has \"" + kernels::name_of(kernels::processor_instructions()) +
                                       "\" at most");
}

kernels::Instructions instructions() { return state().instructions; }

const Entry * entry(size_t index) { return index < state().n_entries ? &state().entries[index] : nullptr; }

void allow(uint32_t entries) { state().allowed = entries; }

uint32_t allowed() { return state().allowed; }

int64_t n_used(size_t index) { return entry(index) == nullptr ? 0 : state().n_used[index].load(); }

void set_default(bool use) { state().use_by_default = use; }

int set_thread(int use) {
    const int before = use_on_this_thread;
    use_on_this_thread = use;
    return before;
}

} // namespace mp::cpu_kernels
