// The kernels' way into ggml, against a small ggml of the test's own: what keeps them out, which products are theirs,
// that all else goes where it went before, and that whoever switches in the middle of a graph changes nothing in it.
#include "check.h"
#include "cpu_kernels.h"
#include "error.h"
#include "ggml_api.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

namespace mp::ggml {

struct Device {};
struct Registry {};

struct Buffer {
    BufferType * type;
};

struct Threadpool {
    explicit Threadpool(int n) : n_threads(n) {}
    int n_threads;
    std::atomic<int> chunk{0};
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
const char * op_name(int32_t op) { return op == mul_mat ? mul_mat_name : "OTHER"; }

size_t row_size(int32_t type, int64_t k) {
    const auto n = static_cast<size_t>(k);
    switch (type) {
    case ggml::f32: return 4 * n;
    case ggml::f16: return 2 * n;
    case ggml::q4_0: return n / 32 * 18;
    case ggml::q8_0: return n / 32 * 34;
    default: return n;
    }
}

// A quantizer of no merit: one scale, rounded values.
void quantize_q8_0(const float * x, void * y, int64_t k) {
    for (int64_t b = 0; b < k / 32; ++b) {
        char * block = static_cast<char *>(y) + 34 * b;
        const uint16_t d = 0x3000; // 0.125
        std::memcpy(block, &d, 2);
        for (int i = 0; i < 32; ++i) {
            block[2 + i] = static_cast<char>(static_cast<int>(x[32 * b + i] * 8.0f) % 127);
        }
    }
}

const ggml::TypeTraitsCpu * type_traits(int32_t) {
    static const ggml::TypeTraitsCpu traits{quantize_q8_0, nullptr, ggml::q8_0, 1};
    return &traits;
}
int has_avx512() { return 0; }
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
    }

    // Whether the kernels compute it.
    bool is_ours(int n_threads = 1) {
        results.assign(results.size(), 0.0f);
        compute(n_threads, plan(n_threads));
        return !results.empty() && results[0] != of_stock;
    }
};

// What the kernel says when asked itself, row by row.
std::vector<float> direct(const Product & product, const kernels::Kernel & kernel) {
    const int64_t k = product.w.ne[0];
    const int64_t n = product.w.ne[1];
    std::vector<float> out;
    for (int64_t r = 0; r < product.x.ne[1]; ++r) {
        const char * row =
            reinterpret_cast<const char *>(product.rows.data()) + static_cast<size_t>(r) * product.x.nb[1];
        std::vector<char> quantized(row_size(ggml::q8_0, k));
        quantize_q8_0(reinterpret_cast<const float *>(row), quantized.data(), k);
        std::vector<char> memory(kernel.packed_bytes(k, 1) + 64);
        char * packed = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
        const void * from =
            kernel.activations == kernels::Activations::f32 ? static_cast<const void *>(row) : quantized.data();
        kernel.pack(from, k, 0, k, 0, 1, packed);
        std::vector<float> y(static_cast<size_t>(n));
        kernel.multiply(product.w.data, k, 0, n, packed, 1, y.data(), y.size());
        out.insert(out.end(), y.begin(), y.end());
    }
    return out;
}

int entry_of(kernels::Weights weights) {
    for (size_t i = 0; cpu_kernels::entry(i) != nullptr; ++i) {
        if (cpu_kernels::entry(i)->weights == weights) {
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
    CHECK(repack_type.context.load() == &stock_context);
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
}

void test_results() {
    for (const kernels::Weights weights : {kernels::Weights::f32, kernels::Weights::q4_0, kernels::Weights::q4_0_x8}) {
        const int index = entry_of(weights);
        if (!CHECK(index >= 0)) {
            continue;
        }
        const cpu_kernels::Entry & entry = *cpu_kernels::entry(static_cast<size_t>(index));
        ggml::Buffer * buffer = entry.repacked ? &repack_buffer : &host_buffer;
        for (const int n_rows : {2, 3, 7, 8, 9, 16, 17, 64}) {
            for (const int n_threads : {1, 2, 3}) {
                const Scope scope(std::to_string(n_rows) + " rows, " + std::to_string(n_threads) + " threads");
                const int64_t gap = n_rows % 2; // rows and results with something between them
                Product product(entry.type, 3 * entry.kernel->k_multiple, 200, n_rows, buffer, gap);
                const int64_t before = cpu_kernels::n_used(static_cast<size_t>(index));
                CHECK(product.is_ours(n_threads));
                CHECK_EQ(cpu_kernels::n_used(static_cast<size_t>(index)), before + 1);
                const std::vector<float> expected = direct(product, *entry.kernel);
                size_t n_wrong = 0;
                for (int r = 0; r < n_rows; ++r) {
                    const float * got = product.results.data() + r * (200 + gap);
                    n_wrong += std::memcmp(got, expected.data() + r * 200, 200 * sizeof(float)) == 0 ? 0 : 1;
                    n_wrong += gap == 1 && got[200] != 0.0f ? 1 : 0;
                }
                CHECK_EQ(n_wrong, size_t{0});
            }
        }
    }
}

void test_what_is_not_ours() {
    const auto plain = [] { return Product(ggml::f32, 128, 16, 4, &host_buffer); };
    CHECK(plain().is_ours());
    CHECK(!Product(ggml::f32, 128, 16, cpu_kernels::most_rows + 1, &host_buffer).is_ours());
    CHECK(!Product(ggml::f32, 128, 16, 0, &host_buffer).is_ours());
    CHECK(!Product(ggml::f32, 100, 16, 4, &host_buffer).is_ours());
    CHECK(!Product(ggml::q4_0, 128, 12, 4, &repack_buffer).is_ours());
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
    CHECK(!with([](Product & p) { p.x.ne[2] = 2; }));
    CHECK(!with([](Product & p) { p.x.ne[3] = 2; }));
    CHECK(!with([](Product & p) { p.w.nb[1] += 4; }));
    CHECK(!with([](Product & p) { p.x.nb[0] = 8; }));
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
    CHECK(product.results[0] != of_stock);
    CHECK(!product.is_ours(2)); // planned anew
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

void test_instructions() {
    CHECK_ERROR(MP_ERROR_ARGUMENT, "avx99", cpu_kernels::limit_instructions("avx99"));
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
        run("what_is_not_ours", test_what_is_not_ours);
        run("switching", test_switching);
    }
    run("instructions", test_instructions);
    return finish();
}
