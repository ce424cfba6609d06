// The ggml functions and structs that the CPU kernels rest on. The functions are public; of the structs, ggml_tensor is
// too, and the rest are declared as in ggml-backend-impl.h, ggml-cpu-impl.h and traits.h of the supported versions.
// Knows declarations only; a test compiles this file against the installed headers where they are public.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mp::ggml {

struct Buffer;
struct Device;
struct Registry;
struct Threadpool;
struct BufferType;
struct ExtraBufferType;

enum Type : int32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q8_1 = 9,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    q8_k = 15,
    iq4_nl = 20,
    iq4_xs = 23,
    i32 = 26,
    bf16 = 30,
    mxfp4 = 39
};
constexpr int32_t device_type_cpu = 0;

struct Tensor {
    int32_t type;
    Buffer * buffer;
    int64_t ne[4];
    size_t nb[4];
    int32_t op;
    int32_t op_params[16];
    int32_t flags;
    Tensor * src[10];
    Tensor * view_src;
    size_t view_offs;
    void * data;
    char name[64];
    void * extra;
    char padding[8];
};

// What ggml_tensor_overhead() counts besides a tensor.
struct Object {
    size_t offs;
    size_t size;
    Object * next;
    int32_t type;
    char padding[4];
};

struct TypeTraitsCpu {
    void (*from_float)(const float * x, void * y, int64_t k);
    void * vec_dot;
    int32_t vec_dot_type;
    int64_t nrows;
};

struct ComputeParams {
    int ith;
    int nth;
    size_t wsize;
    void * wdata;
    Threadpool * threadpool;
    bool use_ref;
};

struct BufferType {
    void * functions[6];
    Device * device;
    std::atomic<ExtraBufferType *> context; // in the extra buffer types of the CPU backend; a plain pointer there
};
static_assert(sizeof(std::atomic<ExtraBufferType *>) == sizeof(void *), "laid out as a pointer is");

// ggml::cpu::tensor_traits and ggml::cpu::extra_buffer_type: only the order of their virtual functions counts.
struct TensorTraits {
    virtual ~TensorTraits() = default;
    virtual bool work_size(int n_threads, const Tensor * op, size_t & size) = 0;
    virtual bool compute_forward(ComputeParams * params, Tensor * op) = 0;
};

struct ExtraBufferType {
    virtual ~ExtraBufferType() = default;
    virtual bool supports_op(Device * device, const Tensor * op) = 0;
    virtual TensorTraits * get_tensor_traits(const Tensor * op) = 0;
};

// X(return type, name, parameters)
#define MP_GGML_FUNCTIONS(X)                                                                                           \
    X(Device *, ggml_backend_dev_by_type, (int32_t))                                                                   \
    X(Registry *, ggml_backend_dev_backend_reg, (Device *))                                                            \
    X(void *, ggml_backend_reg_get_proc_address, (Registry *, const char *))                                           \
    X(BufferType *, ggml_backend_buffer_get_type, (Buffer *))                                                          \
    X(const char *, ggml_backend_buft_name, (BufferType *))                                                            \
    X(bool, ggml_backend_buft_is_host, (BufferType *))                                                                 \
    X(size_t, ggml_tensor_overhead, ())                                                                                \
    X(const char *, ggml_op_name, (int32_t))                                                                           \
    X(size_t, ggml_row_size, (int32_t, int64_t))                                                                       \
    X(const TypeTraitsCpu *, ggml_get_type_traits_cpu, (int32_t))                                                      \
    X(int, ggml_cpu_has_avx512_bf16, ())                                                                               \
    X(int, ggml_cpu_has_avx512, ())                                                                                    \
    X(int, ggml_cpu_has_dotprod, ())                                                                                   \
    X(int, ggml_cpu_has_matmul_int8, ())                                                                               \
    X(void, ggml_barrier, (Threadpool *))                                                                              \
    X(void, ggml_threadpool_chunk_set, (Threadpool *, int))                                                            \
    X(int, ggml_threadpool_chunk_add, (Threadpool *, int))

struct Api {
#define MP_FIELD(result, name, parameters) result(*name) parameters = nullptr;
    MP_GGML_FUNCTIONS(MP_FIELD)
#undef MP_FIELD
};

} // namespace mp::ggml
