// Out of memory at every allocation of a generation, one after the other: the call says so, the KV cache holds what
// the session says it does, and the next generation is right.
#include "session_fixture.h"

#include <cstdlib>
#include <new>

using namespace mp;
using namespace mp::test;

namespace {

long n_left = -1; // allocations until one fails; below zero none does
bool is_quiet = false;

bool fails() { return !is_quiet && n_left >= 0 && n_left-- == 0; }

// No failures meanwhile: in the mock, which is not what is tested.
struct Quiet {
    bool before = is_quiet;
    Quiet() { is_quiet = true; }
    ~Quiet() { is_quiet = before; }
    Quiet(const Quiet &) = delete;
    Quiet & operator=(const Quiet &) = delete;
};

template <typename Tag, typename Result, typename... Parameters> auto quiet(Result (*function)(Parameters...)) {
    static Result (*inner)(Parameters...);
    inner = function;
    return +[](Parameters... parameters) -> Result {
        const Quiet quietly;
        return inner(parameters...);
    };
}

LlamaApi quiet_api() {
    LlamaApi api = mock_api();
#define QUIET(result, name, parameters)                                                                                \
    struct name##_tag;                                                                                                 \
    api.name = quiet<name##_tag>(api.name);
    MP_LLAMA_FUNCTIONS(QUIET)
#undef QUIET
    return api;
}

} // namespace

#if defined(__GNUC__)
#define NOT_INLINE __attribute__((noinline)) // else GCC takes the free below for that of another new
#else
#define NOT_INLINE
#endif

NOT_INLINE void * operator new(size_t n, const std::nothrow_t &) noexcept {
    return fails() ? nullptr : std::malloc(n == 0 ? 1 : n);
}
NOT_INLINE void * operator new(size_t n) {
    void * memory = operator new(n, std::nothrow);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}
NOT_INLINE void operator delete(void * memory) noexcept { std::free(memory); }
NOT_INLINE void operator delete(void * memory, size_t) noexcept { std::free(memory); }

namespace {

const Ids prompt{3, 1, 4, 1, 5, 9, 2, 6, 3, 1, 4};
constexpr int32_t max_tokens = 10;

// Runs with the n-th allocation failing. Returns false if none did.
bool run_out(Bench & bench, const Speculation & speculation, const Ids & plain, long n) {
    Session & session = bench.session;
    Ids tokens;
    Speculation settings = speculation;
    MockSampler sampler;
    bool failed = false;
    n_left = n;
    try {
        session.begin(prompt, sampler.get(), std::move(settings), max_tokens, true);
        while (tokens.size() < static_cast<size_t>(max_tokens)) {
            const mp_pass & pass = tokens.empty() ? session.prefill() : session.step();
            const Quiet quietly;
            tokens.insert(tokens.end(), pass.tokens, pass.tokens + pass.n_tokens);
            check_kv(bench.llama, session);
        }
    } catch (const std::bad_alloc &) {
        failed = true;
    }
    n_left = -1;
    check_kv(bench.llama, session);
    CHECK(tokens.size() <= plain.size() && std::equal(tokens.begin(), tokens.end(), plain.begin()));
    return failed;
}

void out_of_memory(const MockLlama & model, const Speculation & speculation) {
    const Ids plain = plain_decode(model, prompt, 0, max_tokens);
    for (const bool is_new : {true, false}) {
        long n = 0;
        for (bool failed = true; failed && n_failures == 0; ++n) {
            const Scope scope("allocation " + std::to_string(n) + (is_new ? "" : " of a session that was used"));
            Bench bench(model);
            if (!is_new) {
                generate(bench, prompt, speculation, 4);
            }
            failed = run_out(bench, speculation, plain, n);
            CHECK_EQ(generate(bench, prompt, speculation, max_tokens, 0, true).tokens, plain);
        }
        CHECK(n > 40);
        std::cout << n - 1 << " allocations failed\n";
    }
}

} // namespace

int main() {
    bind_llama_api(quiet_api());
    MockLlama model;
    model.n_remembered = 2;
    model.rank_of_truth = [](int32_t pos, size_t mask) { return (pos * 7 + static_cast<int32_t>(mask) * 3) % 4 - 1; };
    Speculation wide = speculate(model, 2, {3, 2}, 18);
    wide.update = 0.1f;
    Speculation all = mixed(model, 2, 18, 0.0f);
    all.update = 0.1f;
    run("plain", [&] { out_of_memory(model, Speculation()); });
    run("static tree", [&] { out_of_memory(model, wide); });
    run("dynamic tree", [&] { out_of_memory(model, speculate(model, 1, {}, 12)); });
    run("mixed tree", [&] { out_of_memory(model, all); });
    MockLlama snapshots = model;
    snapshots.kind = MockMemory::snapshots;
    snapshots.n_snapshots = 8;
    snapshots.n_seq_max = 1;
    run("chain with snapshots", [&] { out_of_memory(snapshots, all); });
    MockLlama copies = model;
    copies.kind = MockMemory::copies;
    copies.n_seq_max = 2;
    run("chain in a copy", [&] { out_of_memory(copies, mixed(model, 0, 18, 0.0f)); });
    return finish();
}
