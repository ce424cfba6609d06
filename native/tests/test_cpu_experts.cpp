// Products of rows with the weights of the experts that they are sent to: bits as of one row, whoever shares an expert,
// and what stays ggml's.
#include "mock_ggml.h"

using namespace mp;
using namespace mp::test;
using namespace mp::test::mock_ggml;

namespace {

struct Experts {
    static constexpr int64_t n = 48; // columns of an expert
    static constexpr int64_t n_experts = 5;
    int64_t k;
    int64_t n_used;
    std::vector<char> weights;
    std::vector<float> rows;
    std::vector<int32_t> sent_to;
    std::vector<float> results;
    ggml::Tensor w{};
    ggml::Tensor x{};
    ggml::Tensor ids{};
    ggml::Tensor op{};

    // Each token has a row, or (slots = n_used) one for each of its experts.
    Experts(const cpu_kernels::Entry & entry, int64_t k_, int64_t n_tokens, int64_t n_used_, int64_t slots)
        : k(k_), n_used(n_used_), weights(row_size(entry.type, k) * static_cast<size_t>(n * n_experts)),
          rows(static_cast<size_t>(k * slots * n_tokens)), sent_to(static_cast<size_t>(n_used * n_tokens)),
          results(static_cast<size_t>(n * n_used * n_tokens)) {
        std::mt19937 rng(5);
        for (char & byte : weights) {
            byte = static_cast<char>(below(rng, 256) & 0x3f);
        }
        for (float & value : rows) {
            value = static_cast<float>(below(rng, 200) - 100) / 16.0f;
        }
        for (size_t i = 0; i < sent_to.size(); ++i) { // the last expert gets nothing
            sent_to[i] = static_cast<int32_t>((i / static_cast<size_t>(n_used) * 3 + i) % (n_experts - 1));
        }
        const auto row = static_cast<int64_t>(row_size(entry.type, k));
        set(w, entry.type, {k, n, n_experts, 1}, {entry.type == ggml::f32 ? 4 : 2, row, row * n, row * n * n_experts},
            weights.data());
        set(x, ggml::f32, {k, slots, n_tokens, 1}, {4, 4 * k, 4 * k * slots, 4 * k * slots * n_tokens}, rows.data());
        set(ids, ggml::i32, {n_used, n_tokens, 1, 1}, {4, 4 * n_used, 4 * n_used * n_tokens, 4 * n_used * n_tokens},
            sent_to.data());
        set(op, ggml::f32, {n, n_used, n_tokens, 1}, {4, 4 * n, 4 * n * n_used, 4 * n * n_used * n_tokens},
            results.data());
        w.buffer = entry.repacked ? &repack_buffer : &host_buffer;
        op.op = experts;
        op.src[0] = &w;
        op.src[1] = &x;
        op.src[2] = &ids;
    }
    Experts(const Experts &) = delete;

    bool is_ours(int n_threads) {
        results.assign(results.size(), 0.0f);
        mock_ggml::compute(op, n_threads, mock_ggml::plan(op, n_threads));
        return results[0] != of_stock;
    }

    std::vector<float> expected(const cpu_kernels::Entry & entry) const {
        std::vector<float> out;
        for (size_t i = 0; i < sent_to.size(); ++i) {
            const auto token = static_cast<int64_t>(i) / n_used;
            const auto slot = static_cast<int64_t>(i) % n_used % x.ne[1];
            const std::vector<float> y =
                direct_row(*entry.kernel, entry.type, weights.data() + static_cast<size_t>(sent_to[i]) * w.nb[2], k, n,
                           rows.data() + (token * x.ne[1] + slot) * k);
            out.insert(out.end(), y.begin(), y.end());
        }
        return out;
    }
};

// Of two kernels for the same weights the second is never asked while the first may be.
bool is_second(size_t i) {
    const cpu_kernels::Entry & entry = *cpu_kernels::entry(i);
    const cpu_kernels::Entry * before = i == 0 ? nullptr : cpu_kernels::entry(i - 1);
    return before != nullptr && before->type == entry.type && before->repacked == entry.repacked;
}

void test_results() {
    for (size_t i = 0; cpu_kernels::entry(i) != nullptr; ++i) {
        const cpu_kernels::Entry & entry = *cpu_kernels::entry(i);
        if (entry.is_attention || is_second(i)) {
            continue;
        }
        const Scope scope(entry.name);
        for (const int64_t n_tokens : {1, 2, 5, 19, cpu_kernels::most_rows}) {
            for (const int64_t n_used : {1, 3}) {
                for (const int n_threads : {1, 2, 3}) {
                    const int64_t n_blocks = n_tokens == 5 ? 20 : 2; // so many that nothing fits by rounding up
                    Experts one(entry, n_blocks * entry.kernel->k_multiple, n_tokens, n_used,
                                n_threads == 2 ? n_used : 1);
                    const bool ours = n_tokens >= entry.kernel->fewest_rows;
                    const int64_t before = cpu_kernels::n_used(i);
                    CHECK_EQ(one.is_ours(n_threads), ours);
                    CHECK_EQ(cpu_kernels::n_used(i), before + (ours ? 1 : 0));
                    const std::vector<float> expected = one.expected(entry);
                    CHECK(!ours ||
                          std::memcmp(one.results.data(), expected.data(), expected.size() * sizeof(float)) == 0);
                }
            }
        }
    }
}

void test_what_is_not_ours() {
    const cpu_kernels::Entry & entry = *cpu_kernels::entry(static_cast<size_t>(entry_called("q4_0")));
    const auto with = [&](auto change) {
        Experts one(entry, 128, 4, 2, 1);
        change(one);
        return one.is_ours(2);
    };
    CHECK(with([](Experts &) {}));
    CHECK(!with([](Experts & e) { e.ids.type = ggml::f32; }));
    CHECK(!with([](Experts & e) { e.ids.buffer = &remote_buffer; }));
    CHECK(!with([](Experts & e) { e.ids.data = nullptr; }));
    CHECK(!with([](Experts & e) { e.x.type = ggml::f16; }));
    CHECK(!with([](Experts & e) { e.x.ne[1] = 3; }));
    CHECK(!with([](Experts & e) { e.x.ne[2] = 3; }));
    CHECK(!with([](Experts & e) { e.x.nb[0] = 8; }));
    CHECK(!with([](Experts & e) { e.w.buffer = &remote_buffer; }));
    CHECK(!with([](Experts & e) { e.w.ne[3] = 2; }));
    CHECK(!with([](Experts & e) { e.w.nb[2] += 18; }));
    CHECK(!with([](Experts & e) { e.op.nb[0] = 8; }));
    CHECK(!Experts(entry, 128, cpu_kernels::most_rows + 1, 2, 1).is_ours(1));
    const cpu_kernels::Use none(0);
    CHECK(!with([](Experts &) {}));
}

} // namespace

int main() {
    attach(functions());
    cpu_kernels::allow(~0u, 0);
    cpu_kernels::set_default(true);
    if (has_kernels) {
        run("results", test_results);
        run("what_is_not_ours", test_what_is_not_ours);
    }
    return finish();
}
