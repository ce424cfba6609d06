// The kernels' way into ggml, against a small ggml of the test's own: what keeps them out, which products are theirs,
// that all else goes where it went before, and that whoever switches in the middle of a graph changes nothing in it.
#include "../kernels/blocks.h"
#include "check.h"
#include "cpu_kernels.h"
#include "error.h"
#include "ggml_api.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <type_traits>

namespace mp::ggml {

struct Device {};
struct Registry {};

struct Buffer {
    BufferType * type;
};

struct Threadpool {
    explicit Threadpool(int n) : n_threads(n) {}
    int n_threads;
    std::atomic<int> chunk{1000}; // what the operation before left there
    std::mutex mutex;
    std::condition_variable all_here;
    int n_waiting = 0;
    int generation = 0;
};

} // namespace mp::ggml

using namespace mp;
using namespace mp::test;

namespace {

constexpr int32_t mul_mat = 29;
constexpr int32_t attention = 73;
constexpr int32_t other_op = 5;
constexpr float of_stock = -1.0f; // what the stock traits compute

ggml::Device device;
ggml::Device other_device;
ggml::Registry registry;

struct StockTraits final : ggml::TensorTraits {
    bool work_size(int, const ggml::Tensor *, size_t & size) override {
        size = 77;
        return true;
    }
    bool compute_forward(ggml::ComputeParams * params, ggml::Tensor * op) override {
        if (params->ith == 0) {
            static_cast<float *>(op->data)[0] = of_stock;
        }
        return true;
    }
} stock_traits;

struct StockContext final : ggml::ExtraBufferType {
    int n_supports = 0;
    bool supports_op(ggml::Device *, const ggml::Tensor *) override {
        ++n_supports;
        return true;
    }
    ggml::TensorTraits * get_tensor_traits(const ggml::Tensor *) override { return &stock_traits; }
} stock_context;

ggml::BufferType repack_type{{}, &device, &stock_context};
ggml::BufferType host_type{{}, &device, nullptr};
ggml::BufferType remote_type{{}, &device, nullptr};
ggml::Buffer repack_buffer{&repack_type};
ggml::Buffer host_buffer{&host_type};
ggml::Buffer remote_buffer{&remote_type};

// --- ggml's functions -------------------------------------------------------------------------------

ggml::BufferType * extra_types[] = {&host_type, &repack_type, nullptr};
ggml::Device * cpu_device = &device;
bool has_list = true;
size_t overhead = sizeof(ggml::Object) + sizeof(ggml::Tensor);
const char * mul_mat_name = "MUL_MAT";

ggml::BufferType ** get_extra_types(ggml::Device *) { return extra_types; }
ggml::Device * dev_by_type(int32_t) { return cpu_device; }
ggml::Registry * dev_registry(ggml::Device *) { return &registry; }
void * get_proc_address(ggml::Registry *, const char * name) {
    const bool known = has_list && std::strcmp(name, "ggml_backend_dev_get_extra_bufts") == 0;
    return known ? reinterpret_cast<void *>(get_extra_types) : nullptr;
}
ggml::BufferType * buffer_type(ggml::Buffer * buffer) { return buffer->type; }
const char * type_name(ggml::BufferType * type) { return type == &repack_type ? "CPU_REPACK" : "CPU"; }
bool is_host(ggml::BufferType * type) { return type == &host_type; }
size_t tensor_overhead() { return overhead; }
const char * attention_name = "FLASH_ATTN_EXT";
const char * op_name(int32_t op) { return op == mul_mat ? mul_mat_name : op == attention ? attention_name : "OTHER"; }

size_t row_size(int32_t type, int64_t k) {
    const auto n = static_cast<size_t>(k);
    switch (type) {
    case ggml::f32: return 4 * n;
    case ggml::f16: return 2 * n;
    case ggml::q4_0: return n / 32 * 18;
    case ggml::q4_1: return n / 32 * 20;
    case ggml::q5_0: return n / 32 * 22;
    case ggml::q8_0: return n / 32 * 34;
    case ggml::q8_1: return n / 32 * 36;
    case ggml::q4_k: return n / 256 * 144;
    case ggml::q6_k: return n / 256 * 210;
    case ggml::q8_k: return n / 256 * 292;
    default: return n;
    }
}

// Quantizers of no merit: one scale, cut values.
constexpr float scale = 0.125f;
int quant(float x) { return static_cast<int>(x / scale) % 127; }

// Of values that a half float holds.
uint16_t to_half(float x) {
    int exponent = 0;
    const float size = std::frexp(std::fabs(x), &exponent);
    const int bits = x == 0.0f ? 0 : (exponent + 14) << 10 | (static_cast<int>(size * 2048.0f) & 1023);
    return static_cast<uint16_t>(bits | (x < 0.0f ? 0x8000 : 0));
}

void quantize_f16(const float * x, void * y, int64_t k) {
    for (int64_t i = 0; i < k; ++i) {
        static_cast<uint16_t *>(y)[i] = to_half(x[i]);
    }
}

template <class Block> void quantize(const float * x, void * y, int64_t k) {
    constexpr int n = static_cast<int>(sizeof Block::qs);
    for (int64_t b = 0; b < k / n; ++b) {
        Block block{};
        int sums[16] = {};
        for (int i = 0; i < n; ++i) {
            block.qs[i] = static_cast<int8_t>(quant(x[n * b + i]));
            sums[i / 16] += block.qs[i];
        }
        if constexpr (std::is_same_v<Block, kernels::BlockQ8K>) {
            block.d = scale;
            std::copy(std::begin(sums), std::end(sums), block.bsums);
        } else {
            block.d = to_half(scale);
        }
        if constexpr (std::is_same_v<Block, kernels::BlockQ8_1>) {
            block.s = to_half(scale * static_cast<float>(sums[0] + sums[1]));
        }
        std::memcpy(static_cast<char *>(y) + b * static_cast<int64_t>(sizeof block), &block, sizeof block);
    }
}

const ggml::TypeTraitsCpu * type_traits(int32_t type) {
    static const std::map<int32_t, ggml::TypeTraitsCpu> traits = {
        {ggml::f16, {quantize_f16, nullptr, ggml::f16, 1}},
        {ggml::q8_0, {quantize<kernels::BlockQ8_0>, nullptr, ggml::q8_0, 1}},
        {ggml::q8_1, {quantize<kernels::BlockQ8_1>, nullptr, ggml::q8_1, 1}},
        {ggml::q8_k, {quantize<kernels::BlockQ8K>, nullptr, ggml::q8_k, 1}},
    };
    static const ggml::TypeTraitsCpu none{};
    const auto found = traits.find(type);
    return found == traits.end() ? &none : &found->second;
}
// As built for this processor.
int has_avx512() { return kernels::processor_has(kernels::Instructions::avx512_vnni) ? 1 : 0; }
int has_dotprod() { return kernels::processor_has(kernels::Instructions::neon_dotprod) ? 1 : 0; }
int has_matmul_int8() { return kernels::processor_has(kernels::Instructions::neon_i8mm) ? 1 : 0; }
void barrier(ggml::Threadpool * pool) {
    std::unique_lock<std::mutex> lock(pool->mutex);
    const int generation = pool->generation;
    if (++pool->n_waiting == pool->n_threads) {
        pool->n_waiting = 0;
        ++pool->generation;
        pool->all_here.notify_all();
    } else {
        pool->all_here.wait(lock, [&] { return pool->generation != generation; });
    }
}
void chunk_set(ggml::Threadpool * pool, int value) { pool->chunk = value; }
int chunk_add(ggml::Threadpool * pool, int value) { return pool->chunk.fetch_add(value); }

std::map<std::string, void *> functions() {
    const auto address = [](auto function) { return reinterpret_cast<void *>(function); };
    return {{"ggml_backend_dev_by_type", address(dev_by_type)},
            {"ggml_backend_dev_backend_reg", address(dev_registry)},
            {"ggml_backend_reg_get_proc_address", address(get_proc_address)},
            {"ggml_backend_buffer_get_type", address(buffer_type)},
            {"ggml_backend_buft_name", address(type_name)},
            {"ggml_backend_buft_is_host", address(is_host)},
            {"ggml_tensor_overhead", address(tensor_overhead)},
            {"ggml_op_name", address(op_name)},
            {"ggml_row_size", address(row_size)},
            {"ggml_get_type_traits_cpu", address(type_traits)},
            {"ggml_cpu_has_avx512", address(has_avx512)},
            {"ggml_cpu_has_dotprod", address(has_dotprod)},
            {"ggml_cpu_has_matmul_int8", address(has_matmul_int8)},
            {"ggml_barrier", address(barrier)},
            {"ggml_threadpool_chunk_set", address(chunk_set)},
            {"ggml_threadpool_chunk_add", address(chunk_add)}};
}

void attach(const std::map<std::string, void *> & table) {
    std::vector<const char *> names;
    std::vector<void *> addresses;
    for (const auto & [name, address] : table) {
        names.push_back(name.c_str());
        addresses.push_back(address);
    }
    cpu_kernels::attach(names.data(), addresses.data(), names.size());
}

// --- a product --------------------------------------------------------------------------------------

struct Product {
    std::vector<char> weights;
    std::vector<float> rows;
    std::vector<float> results;
    ggml::Tensor w{};
    ggml::Tensor x{};
    ggml::Tensor op{};

    Product(int32_t type, int64_t k, int64_t n, int64_t n_rows, ggml::Buffer * buffer, int64_t gap = 0)
        : weights(row_size(type, k) * static_cast<size_t>(n) + 64),
          rows(static_cast<size_t>((k + gap) * std::max<int64_t>(n_rows, 1))),
          results(static_cast<size_t>((n + gap) * std::max<int64_t>(n_rows, 1)), 0.0f) {
        std::mt19937 rng(3);
        for (char & byte : weights) {
            byte = static_cast<char>(below(rng, 256) & 0x3f); // scales and floats stay finite
        }
        for (float & value : rows) {
            value = static_cast<float>(below(rng, 200) - 100) / 16.0f;
        }
        set(w, type, k, n, row_size(type, k), weights.data());
        set(x, ggml::f32, k, n_rows, static_cast<size_t>(k + gap) * 4, rows.data());
        set(op, ggml::f32, n, n_rows, static_cast<size_t>(n + gap) * 4, results.data());
        w.buffer = buffer;
        op.op = mul_mat;
        op.src[0] = &w;
        op.src[1] = &x;
    }

    static void set(ggml::Tensor & t, int32_t type, int64_t ne0, int64_t ne1, size_t row_bytes, void * data) {
        t.type = type;
        t.ne[0] = ne0;
        t.ne[1] = ne1;
        t.ne[2] = t.ne[3] = 1;
        t.nb[0] = type == ggml::f32 ? 4 : 2;
        t.nb[1] = row_bytes;
        t.nb[2] = t.nb[3] = row_bytes * static_cast<size_t>(ne1);
        t.data = data;
    }

    // As ggml_graph_plan: bytes of work memory.
    size_t plan(int n_threads) {
        size_t size = 0;
        CHECK(repack_type.context.load()->get_tensor_traits(&op)->work_size(n_threads, &op, size));
        return size;
    }

    // As the threads of a computation.
    void compute(int n_threads, size_t work_bytes, bool use_ref = false) {
        std::vector<char> work(work_bytes);
        ggml::Threadpool pool(n_threads);
        results.assign(results.size(), 0.0f);
        std::vector<std::thread> threads;
        for (int i = 0; i < n_threads; ++i) {
            threads.emplace_back([&, i] {
                ggml::ComputeParams params{i, n_threads, work.size(), work.data(), &pool, use_ref};
                repack_type.context.load()->get_tensor_traits(&op)->compute_forward(&params, &op);
            });
        }
        for (std::thread & thread : threads) {
            thread.join();
        }
        // Nobody multiplies what others still pack.
        CHECK_EQ(pool.generation > 0, is_done());
    }

    bool is_done() const { return results[0] != of_stock; }

    // Whether the kernels compute it.
    bool is_ours(int n_threads = 1) {
        compute(n_threads, plan(n_threads));
        return is_done();
    }
};

// Attention of rows of 4 heads over a cache of 2, in views as llama.cpp has them.
struct Attention {
    static constexpr int64_t size = 64;
    static constexpr int64_t n_heads = 4;
    static constexpr int64_t n_cached_heads = 2;
    static constexpr int64_t n_keys = 40;
    int64_t n_rows;
    std::vector<float> queries;
    std::vector<uint16_t> keys;
    std::vector<uint16_t> values;
    std::vector<uint16_t> hidden;
    std::vector<float> results;
    ggml::Tensor q{};
    ggml::Tensor k{};
    ggml::Tensor v{};
    ggml::Tensor mask{};
    ggml::Tensor op{};

    explicit Attention(int64_t rows)
        : n_rows(rows), queries(static_cast<size_t>(rows * n_heads * size)),
          keys(static_cast<size_t>(n_keys * n_cached_heads * size)), values(keys.size()),
          hidden(static_cast<size_t>(rows * n_keys)), results(queries.size(), 0.0f) {
        std::mt19937 rng(7);
        for (float & x : queries) {
            x = static_cast<float>(below(rng, 64) - 32) / 16.0f;
        }
        for (std::vector<uint16_t> * halves : {&keys, &values}) {
            for (uint16_t & x : *halves) {
                x = to_half(static_cast<float>(below(rng, 64) - 32) / 16.0f);
            }
        }
        for (uint16_t & x : hidden) {
            x = below(rng, 3) == 0 ? 0xfc00 : 0;
        }
        set(q, ggml::f32, {size, rows, n_heads, 1}, {4, n_heads * size * 4, size * 4}, queries.data());
        set(k, ggml::f16, {size, n_keys, n_cached_heads, 1}, {2, n_cached_heads * size * 2, size * 2}, keys.data());
        set(v, ggml::f16, {size, n_keys, n_cached_heads, 1}, {2, n_cached_heads * size * 2, size * 2}, values.data());
        set(mask, ggml::f16, {n_keys, rows, 1, 1}, {2, n_keys * 2, rows * n_keys * 2}, hidden.data());
        set(op, ggml::f32, {size, n_heads, rows, 1}, {4, size * 4, n_heads * size * 4}, results.data());
        op.op = attention;
        op.src[0] = &q;
        op.src[1] = &k;
        op.src[2] = &v;
        op.src[3] = &mask;
        const float factor = 0.125f;
        std::memcpy(op.op_params, &factor, sizeof factor);
    }
    Attention(const Attention &) = delete;

    static void set(ggml::Tensor & t, int32_t type, std::initializer_list<int64_t> ne,
                    std::initializer_list<int64_t> nb, void * data) {
        t.type = type;
        std::copy(ne.begin(), ne.end(), t.ne);
        std::transform(nb.begin(), nb.end(), t.nb, [](int64_t bytes) { return static_cast<size_t>(bytes); });
        t.data = data;
        t.buffer = &host_buffer;
    }

    // Plans, and computes by so many threads; whether it was ours.
    bool compute(int n_threads, bool use_ref = false) {
        ggml::TensorTraits * traits = repack_type.context.load()->get_tensor_traits(&op);
        size_t size_of_work = 0;
        CHECK(!traits->work_size(n_threads, &op, size_of_work)); // ggml's own
        ggml::Threadpool pool(n_threads);
        std::atomic<int> n_done{0};
        std::vector<std::thread> threads;
        for (int i = 0; i < n_threads; ++i) {
            threads.emplace_back([&, i] {
                ggml::ComputeParams params{i, n_threads, 0, nullptr, &pool, use_ref};
                n_done += traits->compute_forward(&params, &op);
            });
        }
        for (std::thread & thread : threads) {
            thread.join();
        }
        CHECK(n_done == 0 || n_done == n_threads);
        return n_done > 0;
    }

    // One query at a time, straight from the kernel.
    std::vector<float> direct() const {
        std::vector<float> out(results.size());
        const kernels::Attend attend = kernels::find_attention(size, cpu_kernels::instructions(), true);
        for (int64_t row = 0; row < n_rows; ++row) {
            for (int64_t head = 0; head < n_heads; ++head) {
                const int64_t at = (row * n_heads + head) * size;
                const int64_t cached = head / (n_heads / n_cached_heads) * size;
                uint16_t query[size];
                quantize_f16(queries.data() + at, query, size);
                const kernels::HeadCache cache = {keys.data() + cached, n_cached_heads * size, values.data() + cached,
                                                  n_cached_heads * size, n_keys};
                const uint16_t * mask_of_row = hidden.data() + row * n_keys;
                float * to = out.data() + at;
                attend(cache, query, &mask_of_row, 1, 0.125f, &to);
            }
        }
        return out;
    }
};

// What ggml turns rows into for weights.
int32_t activations_for(int32_t type) {
    const std::map<int32_t, int32_t> types = {
        {ggml::q4_0, ggml::q8_0}, {ggml::q4_1, ggml::q8_1}, {ggml::q5_0, ggml::q8_0}, {ggml::q8_0, ggml::q8_0},
        {ggml::q4_k, ggml::q8_k}, {ggml::q6_k, ggml::q8_k}, {ggml::f16, ggml::f16},   {ggml::f32, ggml::f32}};
    return types.at(type);
}

// What the kernel says when asked itself, row by row.
std::vector<float> direct(const Product & product, const kernels::Kernel & kernel) {
    const int64_t k = product.w.ne[0];
    const int64_t n = product.w.ne[1];
    std::vector<float> out;
    for (int64_t r = 0; r < product.x.ne[1]; ++r) {
        const char * row =
            reinterpret_cast<const char *>(product.rows.data()) + static_cast<size_t>(r) * product.x.nb[1];
        const int32_t type = activations_for(product.w.type);
        std::vector<char> quantized(row_size(type, k));
        if (type == ggml::f32) {
            std::memcpy(quantized.data(), row, quantized.size());
        } else {
            type_traits(type)->from_float(reinterpret_cast<const float *>(row), quantized.data(), k);
        }
        std::vector<char> memory(kernel.packed_bytes(k, 1) + 64);
        char * packed = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
        kernel.pack(quantized.data(), k, 0, k, 0, 1, packed);
        std::vector<float> y(static_cast<size_t>(n));
        kernel.multiply(product.w.data, k, 0, n, packed, 1, y.data(), y.size());
        out.insert(out.end(), y.begin(), y.end());
    }
    return out;
}

int entry_of(kernels::Weights weights) {
    for (size_t i = 0; cpu_kernels::entry(i) != nullptr; ++i) {
        if (std::strcmp(cpu_kernels::entry(i)->name, kernels::name_of(weights)) == 0) {
            return static_cast<int>(i);
        }
    }
    return -1;
}

const bool has_kernels = kernels::processor_instructions() != kernels::Instructions::none;

// --- tests, in this order: attaching is for good ----------------------------------------------------

void test_refusals() {
    for (size_t i = 0; cpu_kernels::required_function(i) != nullptr; ++i) {
        auto table = functions();
        CHECK_EQ(table.erase(cpu_kernels::required_function(i)), size_t{1});
        CHECK_ERROR(MP_ERROR_BINDING, cpu_kernels::required_function(i), attach(table));
    }
    overhead += 8;
    CHECK_ERROR(MP_ERROR_BINDING, "bytes", attach(functions()));
    overhead -= 8;
    mul_mat_name = "MULTIPLY";
    CHECK_ERROR(MP_ERROR_BINDING, "MUL_MAT", attach(functions()));
    mul_mat_name = "MUL_MAT";
    attention_name = "ATTENTION";
    CHECK_ERROR(MP_ERROR_BINDING, "FLASH_ATTN_EXT", attach(functions()));
    attention_name = "FLASH_ATTN_EXT";
    cpu_device = nullptr;
    CHECK_ERROR(MP_ERROR_BINDING, "no CPU backend", attach(functions()));
    cpu_device = &device;
    has_list = false;
    CHECK_ERROR(MP_ERROR_BINDING, "no extra buffer types", attach(functions()));
    has_list = true;
    extra_types[1] = nullptr;
    CHECK_ERROR(MP_ERROR_BINDING, "GGML_CPU_REPACK", attach(functions()));
    extra_types[1] = &repack_type;
    repack_type.device = &other_device;
    CHECK_ERROR(MP_ERROR_BINDING, "laid out differently", attach(functions()));
    repack_type.device = &device;
    CHECK(repack_type.context.load() == &stock_context); // nothing has changed
    repack_type.context = nullptr;
    CHECK_ERROR(MP_ERROR_BINDING, "laid out differently", attach(functions()));
    CHECK(repack_type.context.load() == nullptr);
    repack_type.context = &stock_context;
    CHECK(cpu_kernels::entry(0) == nullptr);
}

void test_nothing_is_allowed_at_first() {
    attach(functions());
    CHECK(repack_type.context.load() != &stock_context);
    attach(functions()); // again is no harm
    CHECK_EQ(cpu_kernels::allowed(), 0u);
    cpu_kernels::set_default(true);
    CHECK(!Product(ggml::f32, 64, 8, 4, &host_buffer).is_ours());
    cpu_kernels::set_default(false);
    CHECK_EQ(entry_of(kernels::Weights::f32) >= 0, has_kernels);
    CHECK(cpu_kernels::entry(100) == nullptr);
    CHECK_EQ(cpu_kernels::n_used(100), int64_t{0});
}

void test_all_else_goes_where_it_went() {
    Product product(ggml::f32, 64, 8, 4, &host_buffer);
    product.op.op = other_op;
    CHECK(repack_type.context.load()->get_tensor_traits(&product.op) == &stock_traits);
    const int before = stock_context.n_supports;
    CHECK(repack_type.context.load()->supports_op(&device, &product.op));
    CHECK_EQ(stock_context.n_supports, before + 1);
    product.op.op = mul_mat;
    CHECK_EQ(product.plan(1), size_t{77});
    product.compute(1, 77);
    CHECK_EQ(product.results[0], of_stock);
}

// The product of so many rows is computed by so many threads, of more that were planned for, to the kernel's own bits.
void check_product(size_t index, int64_t n_blocks, int n_rows, int n_threads, int n_planned) {
    const Scope scope(std::to_string(n_rows) + " rows, " + std::to_string(n_threads) + " threads");
    const cpu_kernels::Entry & entry = *cpu_kernels::entry(index);
    constexpr int64_t n = 200;
    const int64_t gap = n_rows % 2; // rows and results with something between them
    Product product(entry.type, n_blocks * entry.kernel->k_multiple, n, n_rows,
                    entry.repacked ? &repack_buffer : &host_buffer, gap);
    const int64_t before = cpu_kernels::n_used(index);
    const bool expected_ours = n_rows >= entry.kernel->fewest_rows;
    product.compute(n_threads, product.plan(n_planned));
    CHECK_EQ(product.is_done(), expected_ours);
    CHECK_EQ(cpu_kernels::n_used(index), before + (expected_ours ? 1 : 0));
    if (!expected_ours) {
        return;
    }
    const std::vector<float> expected = direct(product, *entry.kernel);
    size_t n_wrong = 0;
    for (int r = 0; r < n_rows; ++r) {
        const float * got = product.results.data() + r * (n + gap);
        n_wrong += std::memcmp(got, expected.data() + r * n, n * sizeof(float)) == 0 ? 0 : 1;
        n_wrong += gap == 1 && got[n] != 0.0f ? 1 : 0;
    }
    CHECK_EQ(n_wrong, size_t{0});
}

void test_results() {
    for (int i = 0; i < kernels::n_weights; ++i) {
        const auto weights = static_cast<kernels::Weights>(i);
        const Scope scope(kernels::name_of(weights));
        const int found = entry_of(weights);
        CHECK_EQ(found >= 0, kernels::find(weights, cpu_kernels::instructions(), has_avx512() != 0) != nullptr);
        if (found < 0) {
            continue;
        }
        const auto index = static_cast<size_t>(found);
        for (int n_rows = 1; n_rows <= cpu_kernels::most_rows; n_rows += n_rows < 18 ? 1 : 23) {
            for (const int n_threads : {1, 2, 3}) {
                check_product(index, 3, n_rows, n_threads, n_threads);
            }
        }
        check_product(index, 1, 5, 3, 3); // threads with nothing to pack
        check_product(index, 5, 8, 2, 4);
    }
}

const bool has_attention = kernels::find_attention(64, kernels::processor_instructions(), true) != nullptr;

void test_attention() {
    size_t index = 0;
    while (cpu_kernels::entry(index + 1) != nullptr) {
        ++index;
    }
    CHECK_EQ(std::string(cpu_kernels::entry(index)->name) == "attention f16", has_attention);
    for (const int64_t n_rows : {1, 2, 3, 8, 20}) {
        for (const int n_threads : {1, 2, 3}) {
            const Scope scope(std::to_string(n_rows) + " rows, " + std::to_string(n_threads) + " threads");
            Attention one(n_rows);
            const int64_t before = cpu_kernels::n_used(index);
            CHECK_EQ(one.compute(n_threads), has_attention);
            if (has_attention) {
                CHECK_EQ(cpu_kernels::n_used(index), before + 1);
                const std::vector<float> expected = one.direct();
                CHECK_EQ(std::memcmp(one.results.data(), expected.data(), expected.size() * sizeof(float)), 0);
            }
        }
    }
    const auto with = [&](auto change) {
        Attention one(3);
        change(one);
        return one.compute(1);
    };
    CHECK_EQ(with([](Attention &) {}), has_attention);
    CHECK_EQ(with([](Attention & a) { a.op.src[3] = nullptr; }), has_attention);
    const float number = 1.0f;
    CHECK(!with([&](Attention & a) { std::memcpy(&a.op.op_params[1], &number, sizeof number); })); // ALiBi
    CHECK(!with([&](Attention & a) { std::memcpy(&a.op.op_params[2], &number, sizeof number); })); // capped
    CHECK(!with([](Attention & a) { a.op.src[4] = &a.mask; }));                                    // sinks
    CHECK(!with([](Attention & a) { a.k.type = ggml::q8_0; }));
    CHECK(!with([](Attention & a) { a.v.type = ggml::f32; }));
    CHECK(!with([](Attention & a) { a.q.type = ggml::f16; }));
    CHECK(!with([](Attention & a) { a.mask.type = ggml::f32; }));
    CHECK(!with([](Attention & a) { a.q.ne[0] = a.k.ne[0] = a.v.ne[0] = 32; }));
    CHECK(!with([](Attention & a) { a.v.ne[0] = 32; }));
    CHECK(!with([](Attention & a) { a.q.ne[1] = cpu_kernels::most_rows + 1; }));
    CHECK(!with([](Attention & a) { a.q.ne[3] = 2; }));
    CHECK(!with([](Attention & a) { a.k.ne[3] = 2; }));
    CHECK(!with([](Attention & a) { a.q.ne[2] = 3; }));
    CHECK(!with([](Attention & a) { a.k.buffer = &remote_buffer; }));
    CHECK(!with([](Attention & a) { a.v.buffer = nullptr; }));
    CHECK(!with([](Attention & a) { a.q.nb[0] = 8; }));
    Attention one(3);
    CHECK(!one.compute(1, true)); // the reference is ggml's
    {
        const cpu_kernels::Use alone(cpu_kernels::attention_alone);
        CHECK_EQ(one.compute(2), has_attention);
        CHECK(!Product(ggml::f32, 128, 16, 4, &host_buffer).is_ours());
    }
    const cpu_kernels::Use none(0);
    CHECK(!one.compute(2));
}

void test_what_is_not_ours() {
    const auto plain = [] { return Product(ggml::f32, 128, 16, 4, &host_buffer); };
    CHECK(plain().is_ours());
    CHECK(!Product(ggml::f32, 128, 16, cpu_kernels::most_rows + 1, &host_buffer).is_ours());
    CHECK(!Product(ggml::f32, 128, 16, 0, &host_buffer).is_ours());
    CHECK(!Product(ggml::f32, 100, 16, 4, &host_buffer).is_ours());
    CHECK(!Product(ggml::q4_0, 128, 10, 4, &repack_buffer).is_ours());
    CHECK(!Product(ggml::f32, 128, 16, 4, &repack_buffer).is_ours());
    CHECK(!Product(ggml::f32, 128, 16, 4, &remote_buffer).is_ours());
    CHECK(!Product(ggml::f32, 128, 16, 4, nullptr).is_ours());
    const auto with = [&](auto change) {
        Product product = plain();
        product.op.src[0] = &product.w;
        product.op.src[1] = &product.x;
        change(product);
        return product.is_ours();
    };
    CHECK(with([](Product &) {}));
    CHECK(!with([](Product & p) { p.x.type = ggml::f16; }));
    CHECK(!with([](Product & p) { p.w.ne[2] = 2; }));
    CHECK(!with([](Product & p) { p.w.ne[3] = 2; }));
    CHECK(!with([](Product & p) { p.x.ne[2] = 2; }));
    CHECK(!with([](Product & p) { p.x.ne[3] = 2; }));
    CHECK(!with([](Product & p) { p.w.nb[1] += 4; }));
    CHECK(!with([](Product & p) { p.x.nb[0] = 8; }));
    CHECK(!with([](Product & p) { p.op.nb[0] = 8; }));
    CHECK(!with([](Product & p) { p.w.data = nullptr; }));
    CHECK(!with([](Product & p) { p.x.data = nullptr; }));
    CHECK(!with([](Product & p) { p.w.ne[0] = 0; }));
    CHECK(!with([](Product & p) { p.w.ne[1] = 0; }));
    CHECK(!with([](Product & p) { p.w.type = ggml::q8_k; }));
    CHECK(!with([](Product & p) { p.op.op_params[1] = 1; }));
    Product whole(ggml::q4_0, 128, 16, 4, &repack_buffer);
    CHECK(whole.is_ours());
    Product part(ggml::q4_0, 128, 16, 4, nullptr);
    part.w.view_src = &whole.w;
    CHECK(!part.is_ours());
    Product view(ggml::f32, 128, 16, 4, nullptr);
    Product base(ggml::f32, 128, 32, 4, &host_buffer);
    view.w.view_src = &base.w;
    CHECK(view.is_ours());
}

// What is decided when a graph is planned holds for its computation.
void test_switching() {
    Product product(ggml::f32, 128, 16, 4, &host_buffer);
    const size_t bytes = product.plan(2);
    cpu_kernels::set_default(false);
    product.compute(2, bytes);
    CHECK(product.is_done());
    CHECK(!product.is_ours(2)); // planned anew
    cpu_kernels::set_default(true);
    product.compute(2, 77); // as it was planned
    CHECK(!product.is_done());
    cpu_kernels::set_default(false);
    {
        const cpu_kernels::Use use(1);
        CHECK(product.is_ours());
        {
            const cpu_kernels::Use none(0);
            CHECK(!product.is_ours());
        }
        CHECK(product.is_ours());
        std::thread([&] { CHECK(!product.is_ours()); }).join(); // a thread decides for itself
    }
    CHECK(!product.is_ours());
    cpu_kernels::set_default(true);
    CHECK(product.is_ours());
    {
        const cpu_kernels::Use none(0);
        CHECK(!product.is_ours());
    }
    product.compute(1, product.plan(1), true); // the reference was asked for
    CHECK_EQ(product.results[0], of_stock);
    cpu_kernels::allow(cpu_kernels::allowed() & ~(1u << entry_of(kernels::Weights::f32)));
    CHECK(!product.is_ours());
    CHECK(Product(ggml::q4_0, 128, 16, 4, &host_buffer).is_ours());
}

// Of two kernels for the same weights, the first that is allowed is taken.
void test_variants() {
    for (size_t i = 0; cpu_kernels::entry(i + 1) != nullptr; ++i) {
        const cpu_kernels::Entry & one = *cpu_kernels::entry(i);
        const cpu_kernels::Entry & other = *cpu_kernels::entry(i + 1);
        if (one.type != other.type || one.repacked != other.repacked) {
            continue;
        }
        const Scope scope(other.name);
        for (const size_t allowed : {i, i + 1}) {
            cpu_kernels::allow(1u << allowed);
            const int64_t before = cpu_kernels::n_used(allowed);
            Product product(one.type, one.kernel->k_multiple, 16, 4, one.repacked ? &repack_buffer : &host_buffer);
            product.compute(1, product.plan(1));
            CHECK_EQ(cpu_kernels::n_used(allowed), before + 1);
        }
        cpu_kernels::allow(3u << i);
        const int64_t before = cpu_kernels::n_used(i);
        Product product(one.type, one.kernel->k_multiple, 16, 4, one.repacked ? &repack_buffer : &host_buffer);
        product.compute(1, product.plan(1));
        CHECK_EQ(cpu_kernels::n_used(i), before + 1);
    }
    cpu_kernels::allow(~0u);
}

void test_instructions() {
    const uint32_t before = cpu_kernels::allowed();
    CHECK_ERROR(MP_ERROR_ARGUMENT, "avx99", cpu_kernels::limit_instructions("avx99"));
    CHECK_EQ(cpu_kernels::allowed(), before);
    Product planned(ggml::q4_0, 128, 16, 4, &host_buffer);
    CHECK_EQ(planned.is_ours(), has_kernels);
    for (const auto one :
         {kernels::Instructions::avx2, kernels::Instructions::avx2_vnni, kernels::Instructions::avx512_vnni,
          kernels::Instructions::neon_dotprod, kernels::Instructions::neon_i8mm}) {
        if (!kernels::processor_has(one)) {
            CHECK_ERROR(MP_ERROR_ARGUMENT, kernels::name_of(one),
                        cpu_kernels::limit_instructions(kernels::name_of(one)));
            continue;
        }
        cpu_kernels::allow(~0u);
        cpu_kernels::limit_instructions(kernels::name_of(one));
        CHECK(cpu_kernels::instructions() == one);
        CHECK_EQ(cpu_kernels::allowed(), 0u);
        CHECK(!planned.is_ours());
        cpu_kernels::allow(~0u);
        const int index = entry_of(kernels::Weights::q4_0);
        if (CHECK(index >= 0)) {
            CHECK(cpu_kernels::entry(static_cast<size_t>(index))->kernel ==
                  kernels::find(kernels::Weights::q4_0, one, false));
            CHECK(planned.is_ours());
        }
    }
    cpu_kernels::limit_instructions("");
    CHECK(cpu_kernels::entry(0) == nullptr);
    CHECK_EQ(cpu_kernels::allowed(), 0u);
    CHECK(!Product(ggml::q4_0, 128, 16, 4, &host_buffer).is_ours());
}

} // namespace

int main() {
    run("refusals", test_refusals);
    run("nothing_is_allowed_at_first", test_nothing_is_allowed_at_first);
    run("all_else_goes_where_it_went", test_all_else_goes_where_it_went);
    cpu_kernels::set_default(true);
    cpu_kernels::allow(~0u);
    if (has_kernels) {
        run("results", test_results);
        run("attention", test_attention);
        run("what_is_not_ours", test_what_is_not_ours);
        run("variants", test_variants);
        run("switching", test_switching);
    }
    run("instructions", test_instructions);
    return finish();
}
