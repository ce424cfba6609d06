#include "kernels.h"

#include <initializer_list>

#if defined(MP_X86_KERNELS)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(MP_NEON_KERNELS) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(MP_NEON_KERNELS) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace mp::kernels {

#if defined(MP_X86_KERNELS)

namespace {

struct Cpuid {
    uint32_t a = 0, b = 0, c = 0, d = 0;
};

Cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
    Cpuid out;
#if defined(_MSC_VER)
    int registers[4];
    __cpuidex(registers, static_cast<int>(leaf), static_cast<int>(subleaf));
    out = {static_cast<uint32_t>(registers[0]), static_cast<uint32_t>(registers[1]),
           static_cast<uint32_t>(registers[2]), static_cast<uint32_t>(registers[3])};
#else
    __get_cpuid_count(leaf, subleaf, &out.a, &out.b, &out.c, &out.d);
#endif
    return out;
}

// The register state that the operating system saves.
uint64_t saved_state() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low = 0;
    uint32_t high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

bool has(uint32_t value, std::initializer_list<int> bits) {
    for (const int bit : bits) {
        if ((value >> bit & 1u) == 0) {
            return false;
        }
    }
    return true;
}

struct Processor {
    bool avx2 = false;
    bool avx_vnni = false;
    bool avx512_vnni = false;
    bool avx512_bf16 = false;
};

Processor detect() {
    Processor found;
    if (cpuid(0, 0).a < 7) {
        return found;
    }
    const Cpuid basic = cpuid(1, 0);
    const Cpuid extended = cpuid(7, 0);
    constexpr int fma = 12, osxsave = 27, avx = 28, f16c = 29;
    constexpr int avx2 = 5, avx512f = 16, avx512dq = 17, avx512bw = 30, avx512vl = 31, avx512vnni = 11, avxvnni = 4,
                  avx512bf16 = 5;
    constexpr uint64_t ymm = 0x06, zmm = 0xe6;
    found.avx2 = has(basic.c, {fma, osxsave, avx, f16c}) && has(extended.b, {avx2}) && (saved_state() & ymm) == ymm;
    found.avx_vnni = found.avx2 && has(cpuid(7, 1).a, {avxvnni});
    found.avx512_vnni = found.avx2 && has(extended.b, {avx512f, avx512dq, avx512bw, avx512vl}) &&
                        has(extended.c, {avx512vnni}) && (saved_state() & zmm) == zmm;
    found.avx512_bf16 = found.avx512_vnni && has(cpuid(7, 1).a, {avx512bf16});
    return found;
}

const Processor & processor() {
    static const Processor found = detect();
    return found;
}

} // namespace

bool processor_has(Instructions instructions) {
    switch (instructions) {
    case Instructions::none: return true;
    case Instructions::avx2: return processor().avx2;
    case Instructions::avx2_vnni: return processor().avx_vnni;
    case Instructions::avx512_vnni: return processor().avx512_vnni;
    default: return false;
    }
}

const Kernel * find(Weights weights, Instructions instructions, bool wide_floats, bool fused) {
    if (weights == Weights::q2_k_repacked && !wide_floats) {
        return nullptr; // ggml repacks Q2_K where it was built for AVX-512
    }
    if (weights == Weights::bf16 && fused) {
        const bool there = instructions == Instructions::avx512_vnni && wide_floats && processor().avx512_bf16;
        return there ? &avx512_bf16_kernel : nullptr;
    }
    const bool is_float = weights == Weights::bf16 || weights == Weights::f16 || weights == Weights::f32;
    const Kernel * table = nullptr;
    switch (instructions) {
    default: return nullptr;
    case Instructions::avx2: table = avx2_kernels; break;
    case Instructions::avx2_vnni: table = avx2_vnni_kernels; break;
    case Instructions::avx512_vnni: table = is_float && !wide_floats ? avx2_kernels : avx512_kernels; break;
    }
    const Kernel * kernel = &table[static_cast<int>(weights)];
    const bool other_order = is_float && wide_floats && instructions != Instructions::avx512_vnni;
    return kernel->multiply == nullptr || other_order || fused ? nullptr : kernel;
}

Attend find_attention(int head_size, CacheType type, Instructions instructions, bool wide_floats) {
    switch (instructions) {
    case Instructions::avx2: return wide_floats ? nullptr : avx2_attention(head_size, type);
    case Instructions::avx2_vnni: return wide_floats ? nullptr : avx2_vnni_attention(head_size, type);
    case Instructions::avx512_vnni:
        return wide_floats ? avx512_attention(head_size, type) : avx2_attention(head_size, type);
    default: return nullptr;
    }
}

#elif defined(MP_NEON_KERNELS)

namespace {

struct Processor {
    bool dot_products = false;
    bool matrix_products = false;
};

#if defined(__linux__)

Processor detect() {
    constexpr unsigned long dot_products = 1ul << 20;    // HWCAP_ASIMDDP
    constexpr unsigned long matrix_products = 1ul << 13; // HWCAP2_I8MM
    return {(getauxval(AT_HWCAP) & dot_products) != 0, (getauxval(AT_HWCAP2) & matrix_products) != 0};
}

#elif defined(__APPLE__)

bool says_yes(const char * name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

Processor detect() { return {says_yes("hw.optional.arm.FEAT_DotProd"), says_yes("hw.optional.arm.FEAT_I8MM")}; }

#else

Processor detect() { return {}; }

#endif

const Processor & processor() {
    static const Processor found = detect();
    return found;
}

} // namespace

bool processor_has(Instructions instructions) {
    switch (instructions) {
    case Instructions::none: return true;
    case Instructions::neon_dotprod: return processor().dot_products;
    case Instructions::neon_i8mm: return processor().dot_products && processor().matrix_products;
    default: return false;
    }
}

const Kernel * find(Weights weights, Instructions instructions, bool, bool fused) {
    const Kernel * kernel = nullptr;
    switch (instructions) {
    case Instructions::neon_dotprod: kernel = &neon_dotprod_kernel(weights, fused); break;
    case Instructions::neon_i8mm: kernel = &neon_i8mm_kernel(weights, fused); break;
    default: return nullptr;
    }
    return kernel->multiply == nullptr ? nullptr : kernel;
}

Attend find_attention(int, CacheType, Instructions, bool) { return nullptr; }

#else

Attend find_attention(int, CacheType, Instructions, bool) { return nullptr; }

bool processor_has(Instructions instructions) { return instructions == Instructions::none; }

const Kernel * find(Weights, Instructions, bool, bool) { return nullptr; }

#endif

Instructions processor_instructions() {
    for (const Instructions one : {Instructions::neon_i8mm, Instructions::neon_dotprod, Instructions::avx512_vnni,
                                   Instructions::avx2_vnni, Instructions::avx2}) {
        if (processor_has(one)) {
            return one;
        }
    }
    return Instructions::none;
}

const char * name_of(Instructions instructions) {
    switch (instructions) {
    case Instructions::none: return "";
    case Instructions::avx2: return "avx2";
    case Instructions::avx2_vnni: return "avx2-vnni";
    case Instructions::avx512_vnni: return "avx512-vnni";
    case Instructions::neon_dotprod: return "neon-dotprod";
    case Instructions::neon_i8mm: return "neon-i8mm";
    }
    return "";
}

#define MP_NAMES(suffix)                                                                                               \
    {"q4_0" suffix,                                                                                                    \
     "q4_0 repacked" suffix,                                                                                           \
     "q4_1" suffix,                                                                                                    \
     "q5_0" suffix,                                                                                                    \
     "q5_1" suffix,                                                                                                    \
     "q8_0" suffix,                                                                                                    \
     "q8_0 repacked" suffix,                                                                                           \
     "q2_k" suffix,                                                                                                    \
     "q2_k repacked" suffix,                                                                                           \
     "q3_k" suffix,                                                                                                    \
     "q4_k" suffix,                                                                                                    \
     "q4_k repacked" suffix,                                                                                           \
     "q5_k" suffix,                                                                                                    \
     "q6_k" suffix,                                                                                                    \
     "q6_k repacked" suffix,                                                                                           \
     "iq4_nl" suffix,                                                                                                  \
     "iq4_nl repacked" suffix,                                                                                         \
     "iq4_xs" suffix,                                                                                                  \
     "mxfp4" suffix,                                                                                                   \
     "mxfp4 repacked" suffix,                                                                                          \
     "bf16" suffix,                                                                                                    \
     "f16" suffix,                                                                                                     \
     "f32" suffix}

const char * name_of(Weights weights, bool fused) {
    static constexpr const char * names[2][n_weights] = {MP_NAMES(""), MP_NAMES(" fused")};
    return names[fused ? 1 : 0][static_cast<int>(weights)];
}

} // namespace mp::kernels
