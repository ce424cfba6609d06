// A small ggml of the tests' own, for the kernels' way into it: its structs, its functions, threads that compute an
// operation, and kernels that are not asked through it.
#pragma once

#include "../kernels/blocks.h"
#include "check.h"
#include "cpu_backend/cpu_kernels.h"
#include "cpu_backend/ggml_api.h"
#include "error.h"

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

namespace mp::test::mock_ggml {

constexpr int32_t mul_mat = 29;
constexpr int32_t attention = 73;
constexpr int32_t experts = 30;
constexpr int32_t other_op = 5;
constexpr float of_stock = -1.0f; // what the stock traits compute

inline ggml::Device device;
inline ggml::Device other_device;
inline ggml::Registry registry;

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
};
inline StockTraits stock_traits;

struct StockContext final : ggml::ExtraBufferType {
    int n_supports = 0;
    bool supports_op(ggml::Device *, const ggml::Tensor *) override {
        ++n_supports;
        return true;
    }
    ggml::TensorTraits * get_tensor_traits(const ggml::Tensor *) override { return &stock_traits; }
};
inline StockContext stock_context;

inline ggml::BufferType repack_type{{}, &device, &stock_context};
inline ggml::BufferType host_type{{}, &device, nullptr};
inline ggml::BufferType remote_type{{}, &device, nullptr};
inline ggml::Buffer repack_buffer{&repack_type};
inline ggml::Buffer host_buffer{&host_type};
inline ggml::Buffer remote_buffer{&remote_type};

// --- ggml's functions -------------------------------------------------------------------------------

inline ggml::BufferType * extra_types[] = {&host_type, &repack_type, nullptr};
inline ggml::Device * cpu_device = &device;
inline bool has_list = true;
inline size_t overhead = sizeof(ggml::Object) + sizeof(ggml::Tensor);
inline const char * mul_mat_name = "MUL_MAT";

inline ggml::BufferType ** get_extra_types(ggml::Device *) { return extra_types; }
inline ggml::Device * dev_by_type(int32_t) { return cpu_device; }
inline ggml::Registry * dev_registry(ggml::Device *) { return &registry; }
inline void * get_proc_address(ggml::Registry *, const char * name) {
    const bool known = has_list && std::strcmp(name, "ggml_backend_dev_get_extra_bufts") == 0;
    return known ? reinterpret_cast<void *>(get_extra_types) : nullptr;
}
inline ggml::BufferType * buffer_type(ggml::Buffer * buffer) { return buffer->type; }
inline const char * type_name(ggml::BufferType * type) { return type == &repack_type ? "CPU_REPACK" : "CPU"; }
inline bool is_host(ggml::BufferType * type) { return type == &host_type; }
inline size_t tensor_overhead() { return overhead; }
inline const char * experts_name = "MUL_MAT_ID";
inline const char * attention_name = "FLASH_ATTN_EXT";
inline const char * op_name(int32_t op) {
    return op == mul_mat ? mul_mat_name : op == experts ? experts_name : op == attention ? attention_name : "OTHER";
}

inline size_t row_size(int32_t type, int64_t k) {
    const auto n = static_cast<size_t>(k);
    switch (type) {
    case ggml::f32: return 4 * n;
    case ggml::f16: return 2 * n;
    case ggml::q4_0: return n / 32 * 18;
    case ggml::q4_1: return n / 32 * 20;
    case ggml::q5_0: return n / 32 * 22;
    case ggml::q5_1: return n / 32 * 24;
    case ggml::q8_0: return n / 32 * 34;
    case ggml::q8_1: return n / 32 * 36;
    case ggml::q2_k: return n / 256 * 84;
    case ggml::q3_k: return n / 256 * 110;
    case ggml::q4_k: return n / 256 * 144;
    case ggml::q5_k: return n / 256 * 176;
    case ggml::q6_k: return n / 256 * 210;
    case ggml::q8_k: return n / 256 * 292;
    case ggml::iq4_nl: return n / 32 * 18;
    case ggml::iq4_xs: return n / 256 * 136;
    case ggml::bf16: return 2 * n;
    case ggml::mxfp4: return n / 32 * 17;
    default: return n;
    }
}

// Quantizers of no merit: one scale, cut values.
constexpr float scale = 0.125f;
inline int quant(float x) { return static_cast<int>(x / scale) % 127; }

// Of values that a half float holds.
inline uint16_t to_half(float x) {
    int exponent = 0;
    const float size = std::frexp(std::fabs(x), &exponent);
    const int bits = x == 0.0f ? 0 : (exponent + 14) << 10 | (static_cast<int>(size * 2048.0f) & 1023);
    return static_cast<uint16_t>(bits | (x < 0.0f ? 0x8000 : 0));
}

inline void quantize_f16(const float * x, void * y, int64_t k) {
    for (int64_t i = 0; i < k; ++i) {
        static_cast<uint16_t *>(y)[i] = to_half(x[i]);
    }
}

inline void quantize_bf16(const float * x, void * y, int64_t k) {
    for (int64_t i = 0; i < k; ++i) {
        std::memcpy(static_cast<uint16_t *>(y) + i, reinterpret_cast<const char *>(x + i) + 2, 2);
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

inline const ggml::TypeTraitsCpu * type_traits(int32_t type) {
    static const std::map<int32_t, ggml::TypeTraitsCpu> traits = {
        {ggml::f16, {quantize_f16, nullptr, ggml::f16, 1}},
        {ggml::bf16, {quantize_bf16, nullptr, ggml::bf16, 1}},
        {ggml::q8_0, {quantize<kernels::BlockQ8_0>, nullptr, ggml::q8_0, 1}},
        {ggml::q8_1, {quantize<kernels::BlockQ8_1>, nullptr, ggml::q8_1, 1}},
        {ggml::q8_k, {quantize<kernels::BlockQ8K>, nullptr, ggml::q8_k, 1}},
    };
    static const ggml::TypeTraitsCpu none{};
    const auto found = traits.find(type);
    return found == traits.end() ? &none : &found->second;
}
// As built for this processor, but for its instructions for BF16.
inline int has_avx512() { return kernels::processor_has(kernels::Instructions::avx512_vnni) ? 1 : 0; }
inline int n_bfloat_products = 0;
inline int has_bfloat_products() { return n_bfloat_products; }
inline int has_dotprod() { return kernels::processor_has(kernels::Instructions::neon_dotprod) ? 1 : 0; }
inline int has_matmul_int8() { return kernels::processor_has(kernels::Instructions::neon_i8mm) ? 1 : 0; }
inline void barrier(ggml::Threadpool * pool) {
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
inline void chunk_set(ggml::Threadpool * pool, int value) { pool->chunk = value; }
inline int chunk_add(ggml::Threadpool * pool, int value) { return pool->chunk.fetch_add(value); }

inline std::map<std::string, void *> functions() {
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
            {"ggml_cpu_has_avx512_bf16", address(has_bfloat_products)},
            {"ggml_cpu_has_avx512", address(has_avx512)},
            {"ggml_cpu_has_dotprod", address(has_dotprod)},
            {"ggml_cpu_has_matmul_int8", address(has_matmul_int8)},
            {"ggml_barrier", address(barrier)},
            {"ggml_threadpool_chunk_set", address(chunk_set)},
            {"ggml_threadpool_chunk_add", address(chunk_add)}};
}

inline void attach(const std::map<std::string, void *> & table) {
    std::vector<const char *> names;
    std::vector<void *> addresses;
    for (const auto & [name, address] : table) {
        names.push_back(name.c_str());
        addresses.push_back(address);
    }
    cpu_kernels::attach(names.data(), addresses.data(), names.size());
}

// --- an operation -----------------------------------------------------------------------------------

// As ggml_graph_plan: bytes of work memory.
inline size_t plan(ggml::Tensor & op, int n_threads) {
    size_t size = 0;
    repack_type.context.load()->get_tensor_traits(&op)->work_size(n_threads, &op, size);
    return size;
}

// As the threads of a computation; how often they all waited for each other. All of them did it, or none.
inline int compute(ggml::Tensor & op, int n_threads, size_t work_bytes, bool use_ref = false) {
    std::vector<char> work(work_bytes);
    ggml::Threadpool pool(n_threads);
    std::atomic<int> n_done{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < n_threads; ++i) {
        threads.emplace_back([&, i] {
            ggml::ComputeParams params{i, n_threads, work.size(), work.data(), &pool, use_ref};
            n_done += repack_type.context.load()->get_tensor_traits(&op)->compute_forward(&params, &op);
        });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    CHECK(n_done == 0 || n_done == n_threads);
    return pool.generation;
}

// A tensor over memory of the test's.
inline void set(ggml::Tensor & t, int32_t type, std::initializer_list<int64_t> ne, std::initializer_list<int64_t> nb,
                void * data) {
    t.type = type;
    std::copy(ne.begin(), ne.end(), t.ne);
    std::transform(nb.begin(), nb.end(), t.nb, [](int64_t bytes) { return static_cast<size_t>(bytes); });
    t.data = data;
    t.buffer = &host_buffer;
}

// What ggml turns rows into for weights.
inline int32_t activations_for(int32_t type) {
    const std::map<int32_t, int32_t> types = {
        {ggml::q4_0, ggml::q8_0},  {ggml::q4_1, ggml::q8_1}, {ggml::q5_0, ggml::q8_0},   {ggml::q5_1, ggml::q8_1},
        {ggml::q8_0, ggml::q8_0},  {ggml::q2_k, ggml::q8_k}, {ggml::q3_k, ggml::q8_k},   {ggml::q4_k, ggml::q8_k},
        {ggml::q5_k, ggml::q8_k},  {ggml::q6_k, ggml::q8_k}, {ggml::iq4_nl, ggml::q8_0}, {ggml::iq4_xs, ggml::q8_k},
        {ggml::mxfp4, ggml::q8_0}, {ggml::bf16, ggml::bf16}, {ggml::f16, ggml::f16},     {ggml::f32, ggml::f32}};
    return types.at(type);
}

// What the kernel says of one row when asked itself.
inline std::vector<float> direct_row(const kernels::Kernel & kernel, int32_t type, const void * weights, int64_t k,
                                     int64_t n, const float * row) {
    const int32_t activations = activations_for(type);
    std::vector<char> quantized(row_size(activations, k));
    if (activations == ggml::f32) {
        std::memcpy(quantized.data(), row, quantized.size());
    } else {
        type_traits(activations)->from_float(row, quantized.data(), k);
    }
    std::vector<char> memory(kernel.packed_bytes(k, 1) + 64);
    char * packed = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
    kernel.pack(quantized.data(), k, 0, k, 0, 1, packed);
    std::vector<float> y(static_cast<size_t>(n));
    kernel.multiply(weights, k, 0, n, packed, 1, y.data(), y.size());
    return y;
}

inline int entry_called(const char * name) {
    for (size_t i = 0; cpu_kernels::entry(i) != nullptr; ++i) {
        if (std::strcmp(cpu_kernels::entry(i)->name, name) == 0) {
            return static_cast<int>(i);
        }
    }
    return -1;
}

inline int entry_of(kernels::Weights weights) { return entry_called(kernels::name_of(weights)); }

inline const bool has_kernels = kernels::processor_instructions() != kernels::Instructions::none;

} // namespace mp::test::mock_ggml
