// Kernels: their bits against a scalar reference that does ggml's one-row arithmetic in its order, for every kind of
// weights, every instruction set of this processor, sizes with and without remainders, and any number of rows. And
// what they must leave alone: results of other columns and rows, memory before and behind what they were given.
#include "kernel_cases.h"

using namespace mp;
using namespace mp::kernels;
using namespace mp::test;

namespace {

constexpr Instructions all_instructions[] = {Instructions::avx2, Instructions::avx2_vnni, Instructions::avx512_vnni,
                                             Instructions::neon_dotprod, Instructions::neon_i8mm};

void test_all() {
    size_t n_kernels = 0;
    for (const Instructions instructions : all_instructions) {
        for (int i = 0; processor_has(instructions) && i < 4 * n_weights; ++i) {
            const auto weights = static_cast<Weights>(i / 4);
            const Order order{instructions, i % 2 != 0, i / 2 % 2 != 0};
            if (const Kernel * kernel = find(weights, instructions, order.wide_floats, order.fused)) {
                const Scope scope(std::string(name_of(weights, order.fused)) + ", " + name_of(instructions) + ", " +
                                  std::to_string(order.float_lanes()) + " floats");
                check_kernel(weights, kernel, order);
                ++n_kernels;
            }
        }
    }
    // Where the processor has what kernels need, there are some.
    CHECK_EQ(n_kernels > 0, processor_instructions() != Instructions::none);
}

bool is_float(Weights weights) {
    return weights == Weights::bf16 || weights == Weights::f16 || weights == Weights::f32;
}

// A build has x86's kernels, for all weights and instruction sets, or ARM's, or none at all. But sums of 8 float lanes
// are not those of 16: those of AVX2 are always 8, and AVX-512 takes them over where ggml was built for AVX2.
void test_what_is_there() {
    const bool built = find(Weights::q4_0, Instructions::avx2, false) != nullptr;
    for (int w = 0; w < n_weights; ++w) {
        const auto weights = static_cast<Weights>(w);
        const bool of_x86 = built && weights != Weights::q8_0_repacked && weights != Weights::q6_k_repacked;
        for (const bool wide : {false, true}) {
            const bool known = of_x86 && (wide || weights != Weights::q2_k_repacked);
            CHECK(find(weights, Instructions::none, wide) == nullptr);
            CHECK_EQ(find(weights, Instructions::avx2, wide) != nullptr, known && !(is_float(weights) && wide));
            CHECK_EQ(find(weights, Instructions::avx2_vnni, wide) != nullptr, known && !(is_float(weights) && wide));
            CHECK_EQ(find(weights, Instructions::avx512_vnni, wide) != nullptr, known);
        }
        CHECK_EQ(find(weights, Instructions::avx512_vnni, false) == find(weights, Instructions::avx2, false),
                 !of_x86 || is_float(weights) || weights == Weights::q2_k_repacked);
        CHECK(find(weights, Instructions::avx512_vnni, false, true) == nullptr);
    }
    // Two of BF16 where both the processor and ggml have its instruction.
    const Kernel * pairs = find(Weights::bf16, Instructions::avx512_vnni, true, true);
    CHECK(pairs == nullptr || processor_has(Instructions::avx512_vnni));
    CHECK(pairs != find(Weights::bf16, Instructions::avx512_vnni, true));
    CHECK(processor_has(processor_instructions()));
    CHECK(processor_has(Instructions::none));
}

bool arms_too(Weights weights) {
    for (const Weights one :
         {Weights::q4_0, Weights::q4_0_repacked, Weights::q4_1, Weights::q5_0, Weights::q8_0, Weights::q8_0_repacked,
          Weights::q4_k, Weights::q4_k_repacked, Weights::q6_k, Weights::q6_k_repacked, Weights::f32}) {
        if (one == weights) {
            return true;
        }
    }
    return false;
}

// Two of a kind where ggml's compiler decides how it rounds.
void test_what_is_there_on_arm() {
    const bool built = find(Weights::q4_0, Instructions::neon_dotprod, false) != nullptr;
    CHECK(!built || find(Weights::q4_0, Instructions::avx2, false) == nullptr);
    for (int w = 0; w < n_weights; ++w) {
        const auto weights = static_cast<Weights>(w);
        const bool known = built && arms_too(weights);
        const bool has_both = weights == Weights::q4_0 || weights == Weights::q4_1 || weights == Weights::q5_0 ||
                              weights == Weights::q8_0 || weights == Weights::q4_k_repacked ||
                              weights == Weights::q6_k_repacked;
        for (const Instructions one : {Instructions::neon_dotprod, Instructions::neon_i8mm}) {
            CHECK_EQ(find(weights, one, false) != nullptr, known);
            CHECK_EQ(find(weights, one, false, true) != nullptr, known && has_both);
        }
        CHECK_EQ(std::string(name_of(weights, true)), std::string(name_of(weights)) + " fused");
    }
    CHECK(!processor_has(Instructions::neon_i8mm) || processor_has(Instructions::neon_dotprod));
}

} // namespace

int main() {
    run("all", test_all);
    run("what_is_there", test_what_is_there);
    run("what_is_there_on_arm", test_what_is_there_on_arm);
    return finish();
}
