#include "cpu_backend/cpu_kernels.h"

#include "cpu_backend/ops.h"
#include "error.h"

#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

namespace mp::cpu_kernels {

namespace {

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
    {Weights::q4_0, ggml::q4_0, false},
    {Weights::q4_0_repacked, ggml::q4_0, true},
    {Weights::q4_1, ggml::q4_1, false},
    {Weights::q5_0, ggml::q5_0, false},
    {Weights::q5_1, ggml::q5_1, false},
    {Weights::q8_0, ggml::q8_0, false},
    {Weights::q2_k, ggml::q2_k, false},
    {Weights::q2_k_repacked, ggml::q2_k, true},
    {Weights::q3_k, ggml::q3_k, false},
    {Weights::q4_k, ggml::q4_k, false},
    {Weights::q4_k_repacked, ggml::q4_k, true},
    {Weights::q5_k, ggml::q5_k, false},
    {Weights::q6_k, ggml::q6_k, false},
    {Weights::iq4_nl, ggml::iq4_nl, false},
    {Weights::iq4_nl_repacked, ggml::iq4_nl, true},
    {Weights::iq4_xs, ggml::iq4_xs, false},
    {Weights::mxfp4, ggml::mxfp4, false},
    {Weights::mxfp4_repacked, ggml::mxfp4, true},
    {Weights::bf16, ggml::bf16, false},
    {Weights::f16, ggml::f16, false},
    {Weights::f32, ggml::f32, false},
    {Weights::q8_0_repacked, ggml::q8_0, true},
    {Weights::q6_k_repacked, ggml::q6_k, true},
};

State & state() {
    static State * const only = new State;
    return *only;
}

// Attention in the list of kernels: what it has in place of a kernel for weights.
constexpr kernels::Kernel attention_kernel = {
    kernels::Activations::f16, 64, 1, 1, 1, nullptr, nullptr, nullptr, nullptr};
constexpr Entry known_attentions[n_attentions] = {
    {"attention f16", &attention_kernel, ggml::f16, false, true, false},
    {"attention f16 capped", &attention_kernel, ggml::f16, false, true, true},
    {"attention q8_0", &attention_kernel, ggml::q8_0, false, true, false},
    {"attention q8_0 capped", &attention_kernel, ggml::q8_0, false, true, true},
};

std::mutex attaching;
thread_local int use_on_this_thread = -1;

// The kernels of the present instruction set, so that indices have no gaps.
void list_entries(State & s) {
    // ggml multiplies BF16 by the processor's own instruction then, with its roundings.
    const bool has_bfloat_products = s.api.ggml_cpu_has_avx512_bf16 != nullptr && s.api.ggml_cpu_has_avx512_bf16() != 0;
    s.allowed = 0;
    s.for_prompts = 0;
    s.n_entries = 0;
    for (const Known & one : known) {
        for (const bool fused : {false, true}) {
            if (one.weights == Weights::bf16 && fused != has_bfloat_products) {
                continue;
            }
            if (const kernels::Kernel * kernel = kernels::find(one.weights, s.instructions, s.wide_floats, fused)) {
                s.entries[s.n_entries++] = {
                    kernels::name_of(one.weights, fused), kernel, one.type, one.repacked, false, false};
            }
        }
    }
    for (const Entry & one : known_attentions) {
        if (attention::is_there(s, one.type)) {
            s.entries[s.n_entries++] = one;
        }
    }
}

// --- what is ours -----------------------------------------------------------------------------------

// The mark says which entry computes an operation, and whether as a prompt's. It is the last of the parameters, which
// none of the operations has.
constexpr int mark_at = 15;
constexpr int32_t mark_base = 0x6d700000;
constexpr int32_t prompt_bit = 0x100;

struct Claim {
    int index = -1; // which entry computes it; -1: it is not ours
    bool as_prompt = false;
};

bool is_known(const State & s, int32_t op) { return op == s.op_product || op == s.op_experts || op == s.op_attention; }

int entry_for(const State & s, const ggml::Tensor & op, uint32_t allowed) {
    return op.op == s.op_product   ? product::entry_for(s, op, allowed)
           : op.op == s.op_experts ? experts::entry_for(s, op, allowed)
                                   : attention::entry_for(s, op, allowed);
}

Claim claim(const State & s, const ggml::Tensor & op) {
    const uint32_t allowed = s.allowed.load(std::memory_order_relaxed);
    const bool by_default = s.use_by_default.load(std::memory_order_relaxed);
    if (allowed == 0 || !(use_on_this_thread < 0 ? by_default : use_on_this_thread > 0)) {
        return {};
    }
    const int index = entry_for(s, op, allowed);
    if (index < 0) {
        return {};
    }
    const bool is_prompt =
        use_on_this_thread == as_prompt || (op.op == s.op_product && product::count_rows(op) > most_rows);
    if (op.op == s.op_attention || !is_prompt) {
        return {index, false};
    }
    return (s.for_prompts.load() >> index & 1u) != 0 ? Claim{index, true} : Claim{};
}

// Attentions of the graphs that this thread has planned.
struct Attentions {
    bool has_ours = false;
    bool has_ggmls = false;
};
thread_local Attentions planned;

Claim claim_and_mark(const State & s, const ggml::Tensor * op) {
    const Claim found = claim(s, *op);
    if (op->op == s.op_attention) {
        (found.index < 0 ? planned.has_ggmls : planned.has_ours) = true;
    }
    const_cast<ggml::Tensor *>(op)->op_params[mark_at] =
        found.index < 0 ? 0 : mark_base + 1 + found.index + (found.as_prompt ? prompt_bit : 0);
    return found;
}

Claim marked(const State & s, const ggml::Tensor & op) {
    const int32_t mark = op.op_params[mark_at] - mark_base - 1;
    const int32_t index = mark & ~prompt_bit;
    return index >= 0 && index < static_cast<int32_t>(s.n_entries) ? Claim{index, (mark & prompt_bit) != 0} : Claim{};
}

// Claims while a graph is planned, and computes what was claimed; all else is left to the context that was there.
struct Operations final : ggml::TensorTraits {
    bool work_size(int n_threads, const ggml::Tensor * op, size_t & size) override {
        const State & s = state();
        const Claim found = claim_and_mark(s, op);
        if (found.index >= 0 && op->op != s.op_attention) { // which makes do with ggml's own work memory
            const kernels::Kernel & kernel = *s.entries[found.index].kernel;
            size = op->op == s.op_product ? product::work_bytes(s, kernel, *op, n_threads, found.as_prompt)
                                          : experts::work_bytes(s, kernel, *op, n_threads);
            return true;
        }
        ggml::TensorTraits * stock = s.stock->get_tensor_traits(op);
        return stock != nullptr && stock->work_size(n_threads, op, size);
    }

    bool compute_forward(ggml::ComputeParams * params, ggml::Tensor * op) override {
        State & s = state();
        const Claim found = marked(s, *op);
        if (found.index < 0 || params->use_ref) {
            ggml::TensorTraits * stock = s.stock->get_tensor_traits(op);
            return stock != nullptr && stock->compute_forward(params, op);
        }
        const kernels::Kernel & kernel = *s.entries[found.index].kernel;
        if (op->op == s.op_product) {
            product::compute(s, kernel, *params, *op, found.as_prompt);
        } else if (op->op == s.op_experts) {
            experts::compute(s, kernel, *params, *op);
        } else {
            attention::compute(s, *params, *op);
        }
        if (params->ith == 0) {
            s.n_used[found.index].fetch_add(1, std::memory_order_relaxed);
        }
        return true;
    }
};

struct Context final : ggml::ExtraBufferType {
    bool supports_op(ggml::Device * device, const ggml::Tensor * op) override {
        return state().stock->supports_op(device, op);
    }

    ggml::TensorTraits * get_tensor_traits(const ggml::Tensor * op) override {
        static Operations * const operations = new Operations;
        return is_known(state(), op->op) ? operations : state().stock->get_tensor_traits(op);
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
    s.op_product = find_op(api, "MUL_MAT");
    s.op_experts = find_op(api, "MUL_MAT_ID");
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

void allow(uint32_t entries, uint32_t for_prompts) {
    state().for_prompts = for_prompts;
    state().allowed = entries;
}

uint32_t allowed() { return state().allowed; }

bool ggml_attends() {
    const bool answer = planned.has_ggmls || !planned.has_ours;
    planned = {};
    return answer;
}

int64_t n_used(size_t index) { return entry(index) == nullptr ? 0 : state().n_used[index].load(); }

void set_default(bool use) { state().use_by_default = use; }

int set_thread(int use) {
    const int before = use_on_this_thread;
    use_on_this_thread = use;
    return before;
}

} // namespace mp::cpu_kernels
