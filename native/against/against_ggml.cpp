// Every kernel against ggml's own one-row kernel, through the seam that it takes in llama.cpp: products as graphs have
// them, one row at a time without kernels and several rows with one of them, byte by byte.
//
//     against_ggml INSTRUCTIONS     the set that kernels must be chosen by here, "" for none
//
// One of a kernel's two variants must have ggml's bits; which one is said.
#include "cpu_backend/cpu_kernels.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

// Internal to ggml, but exported.
extern "C" {
void ggml_barrier(struct ggml_threadpool * pool);
void ggml_threadpool_chunk_set(struct ggml_threadpool * pool, int value);
int ggml_threadpool_chunk_add(struct ggml_threadpool * pool, int value);
}

using namespace mp;

namespace {

template <class Function> void * address(Function * function) { return reinterpret_cast<void *>(function); }

#define NAMED(function) {#function, address(function)}

void attach() {
    const std::map<std::string, void *> table = {
        NAMED(ggml_backend_dev_by_type),
        NAMED(ggml_backend_dev_backend_reg),
        NAMED(ggml_backend_reg_get_proc_address),
        NAMED(ggml_backend_buffer_get_type),
        NAMED(ggml_backend_buft_name),
        NAMED(ggml_backend_buft_is_host),
        NAMED(ggml_tensor_overhead),
        NAMED(ggml_op_name),
        NAMED(ggml_row_size),
        NAMED(ggml_get_type_traits_cpu),
        NAMED(ggml_cpu_has_avx512),
        NAMED(ggml_cpu_has_dotprod),
        NAMED(ggml_cpu_has_matmul_int8),
        NAMED(ggml_barrier),
        NAMED(ggml_threadpool_chunk_set),
        NAMED(ggml_threadpool_chunk_add),
    };
    std::vector<const char *> names;
    std::vector<void *> addresses;
    for (const auto & [name, function] : table) {
        names.push_back(name.c_str());
        addresses.push_back(function);
    }
    cpu_kernels::attach(names.data(), addresses.data(), names.size());
}

ggml_backend_buffer_type_t buffer_type(bool repacked) {
    if (!repacked) {
        return ggml_backend_cpu_buffer_type();
    }
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const auto list = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    ggml_backend_buffer_type_t * type = list(device);
    while (std::strcmp(ggml_backend_buft_name(*type), "CPU_REPACK") != 0) {
        ++type;
    }
    return *type;
}

ggml_context * new_context() { return ggml_init({size_t{1} << 20, nullptr, true}); }

// Weights of so many columns, kept as llama.cpp keeps them.
class Product {
public:
    Product(std::mt19937 & rng, ggml_type type, bool repacked, int64_t k, int64_t n) : k_(k), n_(n) {
        context_ = new_context();
        weights_ = ggml_new_tensor_2d(context_, type, k, n);
        buffer_ = ggml_backend_alloc_ctx_tensors_from_buft(context_, buffer_type(repacked));
        const std::vector<float> values = random(rng, n);
        std::vector<char> bytes(ggml_row_size(type, k) * static_cast<size_t>(n));
        ggml_quantize_chunk(type, values.data(), bytes.data(), 0, n, k, nullptr);
        ggml_backend_tensor_set(weights_, bytes.data(), 0, bytes.size());
        backend_ = ggml_backend_cpu_init();
    }
    ~Product() {
        ggml_backend_free(backend_);
        ggml_backend_buffer_free(buffer_);
        ggml_free(context_);
    }

    // Rows of the length that the weights take, with outliers.
    std::vector<float> random(std::mt19937 & rng, int64_t rows) const {
        std::normal_distribution<float> normal;
        std::vector<float> out(static_cast<size_t>(rows * k_));
        for (int64_t r = 0; r < rows; ++r) {
            const float size = rng() % 20 == 0 ? 0.0f : std::exp(normal(rng));
            for (int64_t i = 0; i < k_; ++i) {
                out[static_cast<size_t>(r * k_ + i)] = normal(rng) * size * (rng() % 100 == 0 ? 50.0f : 1.0f);
            }
        }
        return out;
    }

    std::vector<float> compute(const float * x, int64_t rows, int n_threads) {
        ggml_context * context = new_context();
        ggml_tensor * input = ggml_new_tensor_2d(context, GGML_TYPE_F32, k_, rows);
        ggml_tensor * product = ggml_mul_mat(context, weights_, input);
        ggml_cgraph * graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, product);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend_);
        ggml_backend_tensor_set(input, x, 0, ggml_nbytes(input));
        ggml_backend_cpu_set_n_threads(backend_, n_threads);
        ggml_backend_graph_compute(backend_, graph);
        std::vector<float> out(static_cast<size_t>(rows * n_));
        ggml_backend_tensor_get(product, out.data(), 0, ggml_nbytes(product));
        ggml_backend_buffer_free(buffer);
        ggml_free(context);
        return out;
    }

private:
    int64_t k_;
    int64_t n_;
    ggml_context * context_;
    ggml_tensor * weights_;
    ggml_backend_buffer_t buffer_;
    ggml_backend_t backend_;
};

// What is wrong with the index-th kernel, "" if nothing is.
std::string difference(size_t index, int64_t n_blocks, int64_t n) {
    const cpu_kernels::Entry & entry = *cpu_kernels::entry(index);
    std::mt19937 rng(11);
    const int64_t k = n_blocks * entry.kernel->k_multiple;
    Product product(rng, static_cast<ggml_type>(entry.type), entry.repacked, k, n);
    const std::vector<float> x = product.random(rng, cpu_kernels::most_rows);
    cpu_kernels::set_thread(0);
    std::vector<float> expected;
    for (int r = 0; r < cpu_kernels::most_rows; ++r) {
        const std::vector<float> row = product.compute(x.data() + r * k, 1, 1);
        expected.insert(expected.end(), row.begin(), row.end());
    }
    cpu_kernels::set_thread(1);
    cpu_kernels::allow(1u << index, 0);
    for (int rows = entry.kernel->fewest_rows; rows <= cpu_kernels::most_rows; rows += rows < 17 ? 1 : 16) {
        const int64_t before = cpu_kernels::n_used(index);
        const std::vector<float> got = product.compute(x.data(), rows, 1 + rows % 3);
        const std::string where =
            std::to_string(rows) + " rows of " + std::to_string(k) + " x " + std::to_string(n) + " weights";
        if (cpu_kernels::n_used(index) == before) {
            return "it was not asked for " + where;
        }
        if (std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) != 0) {
            return where + " differ";
        }
    }
    return "";
}

} // namespace

int main(int argc, char ** argv) {
    attach();
    const std::string instructions = kernels::name_of(cpu_kernels::instructions());
    if (argc != 2 || instructions != argv[1]) {
        std::printf("kernels are chosen by \"%s\" here\n", instructions.c_str());
        return 1;
    }
    std::map<std::string, bool> has_equal; // by weights
    for (size_t i = 0; cpu_kernels::entry(i) != nullptr; ++i) {
        const cpu_kernels::Entry & entry = *cpu_kernels::entry(i);
        std::string wrong;
        const int64_t unit = entry.kernel->n_multiple;
        const int64_t some = unit > 1 ? 5 * unit : 37;
        for (const auto & [n_blocks, n] : {std::pair<int64_t, int64_t>{1, unit}, {3, some}, {8, 24}, {19, 16}}) {
            wrong = wrong.empty() ? difference(i, n_blocks, n) : wrong;
        }
        std::printf("%-20s %s\n", entry.name, wrong.empty() ? "has ggml's bits" : wrong.c_str());
        std::fflush(stdout);
        has_equal[std::to_string(entry.type) + (entry.repacked ? " repacked" : "")] |= wrong.empty();
    }
    size_t n_wrong = 0;
    for (const auto & [weights, equal] : has_equal) {
        n_wrong += equal ? 0 : 1;
    }
    std::printf("%zu of %zu kinds of weights have a kernel with ggml's bits\n", has_equal.size() - n_wrong,
                has_equal.size());
    return n_wrong == 0 ? 0 : 1;
}
