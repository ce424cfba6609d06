// Attention as ggml asks for it: which is the kernels', by how many threads whatever, and what stays ggml's.
#include "mock_ggml.h"

using namespace mp;
using namespace mp::test;
using namespace mp::test::mock_ggml;

namespace {

kernels::Attend attention_kernel(int32_t type) {
    const auto of = type == ggml::f16 ? kernels::CacheType::f16 : kernels::CacheType::q8_0;
    return kernels::find_attention(64, of, cpu_kernels::instructions(), has_avx512() != 0);
}

// ARM has kernels, but none for attention.
bool has_attention_kernel() { return attention_kernel(ggml::f16) != nullptr; }

// Attention of rows of 4 heads over a cache of 2, in views as llama.cpp has them.
struct Attention {
    static constexpr int64_t size = 64;
    static constexpr int64_t n_heads = 4;
    static constexpr int64_t n_cached_heads = 2;
    static constexpr int64_t n_keys = 40;
    int64_t n_rows;
    int32_t type;
    std::vector<float> queries;
    std::vector<char> keys;
    std::vector<char> values;
    std::vector<uint16_t> hidden;
    std::vector<float> results;
    std::vector<float> sinks;
    float cap = 0.0f;
    ggml::Tensor q{};
    ggml::Tensor k{};
    ggml::Tensor v{};
    ggml::Tensor mask{};
    ggml::Tensor sink{};
    ggml::Tensor op{};

    explicit Attention(int64_t rows, int32_t type_ = ggml::f16)
        : n_rows(rows), type(type_), queries(static_cast<size_t>(rows * n_heads * size)),
          hidden(static_cast<size_t>(rows * n_keys)), results(queries.size(), 0.0f) {
        std::mt19937 rng(7);
        const auto random = [&] { return static_cast<float>(below(rng, 64) - 32) / 16.0f; };
        std::generate(queries.begin(), queries.end(), random);
        for (std::vector<char> * cache : {&keys, &values}) {
            std::vector<float> floats(static_cast<size_t>(n_keys * n_cached_heads * size));
            std::generate(floats.begin(), floats.end(), random);
            cache->resize(n_keys * n_cached_heads * head_bytes());
            type_traits(type)->from_float(floats.data(), cache->data(), n_keys * n_cached_heads * size);
        }
        for (uint16_t & x : hidden) {
            x = below(rng, 3) == 0 ? 0xfc00 : 0;
        }
        set(q, ggml::f32, {size, rows, n_heads, 1}, {4, n_heads * size * 4, size * 4}, queries.data());
        const auto of_head = static_cast<int64_t>(head_bytes());
        for (const auto & [tensor, cache] : {std::pair{&k, &keys}, std::pair{&v, &values}}) {
            set(*tensor, type, {size, n_keys, n_cached_heads, 1},
                {type == ggml::f16 ? 2 : 34, n_cached_heads * of_head, of_head}, cache->data());
        }
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

    size_t head_bytes() const { return row_size(type, size); }

    // Plans, and computes by so many threads; whether it was ours.
    bool compute(int n_threads, bool use_ref = false) {
        mock_ggml::compute(op, n_threads, mock_ggml::plan(op, n_threads), use_ref);
        return results[0] != of_stock;
    }

    void cap_at(float value) {
        cap = value;
        std::memcpy(&op.op_params[2], &cap, sizeof cap);
    }

    void add_sinks() {
        sinks = {0.5f, -1.0f, 4.0f, 9.0f};
        set(sink, ggml::f32, {n_heads, 1, 1, 1}, {4, 4 * n_heads, 4 * n_heads}, sinks.data());
        op.src[4] = &sink;
    }

    // One query at a time, straight from the kernel.
    std::vector<float> direct() const {
        std::vector<float> out(results.size());
        const kernels::Attend attend = attention_kernel(type);
        float shares[n_heads];
        std::copy(sinks.begin(), sinks.end(), shares);
        for (int64_t row = 0; row < n_rows; ++row) {
            for (int64_t head = 0; head < n_heads; ++head) {
                const int64_t at = (row * n_heads + head) * size;
                const size_t cached = static_cast<size_t>(head / (n_heads / n_cached_heads)) * head_bytes();
                char query[size * 2];
                type_traits(type)->from_float(queries.data() + at, query, size);
                const uint16_t * mask_of_row = hidden.data() + row * n_keys;
                float * to = out.data() + at;
                attend({{keys.data() + cached, k.nb[1], values.data() + cached, v.nb[1], n_keys},
                        query,
                        1,
                        &mask_of_row,
                        cap == 0.0f ? 0.125f : 0.125f / cap,
                        cap,
                        sinks.empty() ? nullptr : &shares[head],
                        &to});
            }
        }
        return out;
    }
};

// Rows of three texts whose keys take turns in the cache, and begin alike.
void test_texts_side_by_side() {
    for (const int64_t n_rows : {3, 7, 20}) {
        for (const int n_threads : {1, 3}) {
            const Scope scope(std::to_string(n_rows) + " rows, " + std::to_string(n_threads) + " threads");
            Attention one(n_rows);
            for (int64_t row = 0; row < n_rows; ++row) {
                for (int64_t i = 0; i < Attention::n_keys; ++i) {
                    const bool is_seen = i < 5 || i % 3 == row * 3 / n_rows;
                    one.hidden[static_cast<size_t>(row * Attention::n_keys + i)] = is_seen ? 0 : 0xfc00;
                }
            }
            if (one.compute(n_threads)) {
                const std::vector<float> expected = one.direct();
                CHECK_EQ(std::memcmp(one.results.data(), expected.data(), expected.size() * sizeof(float)), 0);
            }
        }
    }
}

void test_attention() {
    const bool has_attention = has_attention_kernel();
    for (const char * name : {"attention f16", "attention f16 capped", "attention q8_0", "attention q8_0 capped"}) {
        const int index = entry_called(name);
        CHECK_EQ(index >= 0, has_attention);
        const std::string kind = name;
        for (const int64_t n_rows : {1, 2, 3, 8, 20, 63}) {
            for (const int n_threads : {1, 2, 3}) {
                const Scope scope(kind + ", " + std::to_string(n_rows) + " rows, " + std::to_string(n_threads) +
                                  " threads");
                Attention one(n_rows, kind.find("q8_0") == std::string::npos ? ggml::f16 : ggml::q8_0);
                if (kind.find("capped") != std::string::npos) {
                    one.cap_at(4.0f);
                }
                if (n_rows % 2 == 1) {
                    one.add_sinks();
                }
                const int64_t before = has_attention ? cpu_kernels::n_used(static_cast<size_t>(index)) : 0;
                CHECK_EQ(one.compute(n_threads), has_attention);
                if (has_attention) {
                    CHECK_EQ(cpu_kernels::n_used(static_cast<size_t>(index)), before + 1);
                    const std::vector<float> expected = one.direct();
                    CHECK_EQ(std::memcmp(one.results.data(), expected.data(), expected.size() * sizeof(float)), 0);
                }
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
    CHECK(!with([](Attention & a) { a.op.src[4] = &a.mask; })); // sinks of half floats
    CHECK(!with([](Attention & a) {
        a.add_sinks();
        a.sink.buffer = &remote_buffer;
    }));
    CHECK(!with([](Attention & a) { a.k.type = ggml::q8_0; }));
    CHECK(!with([](Attention & a) { a.k.type = a.v.type = ggml::q4_0; }));
    CHECK(!with([](Attention & a) { a.v.type = ggml::f32; }));
    CHECK(!with([](Attention & a) { a.q.type = ggml::f16; }));
    CHECK(!with([](Attention & a) { a.mask.type = ggml::f32; }));
    CHECK(!with([](Attention & a) { a.q.ne[0] = a.k.ne[0] = a.v.ne[0] = 48; }));
    CHECK(!with([](Attention & a) { a.v.ne[0] = 32; }));
    CHECK(!with([](Attention & a) { a.q.ne[1] = 64; })); // ggml's tiles
    CHECK(!with([](Attention & a) { a.q.ne[3] = 2; }));
    CHECK(!with([](Attention & a) { a.k.ne[3] = 2; }));
    CHECK(!with([](Attention & a) { a.q.ne[2] = 3; }));
    CHECK(!with([](Attention & a) { a.k.buffer = &remote_buffer; }));
    CHECK(!with([](Attention & a) { a.v.buffer = nullptr; }));
    CHECK(!with([](Attention & a) { a.q.nb[0] = 8; }));
    Attention one(3);
    CHECK(!one.compute(1, true)); // the reference is ggml's
    {
        const cpu_kernels::Use alone(cpu_kernels::as_prompt);
        CHECK_EQ(one.compute(2), has_attention);
    }
    const cpu_kernels::Use none(0);
    CHECK(!one.compute(2));
}

} // namespace

int main() {
    attach(functions());
    cpu_kernels::allow(~0u, 0);
    cpu_kernels::set_default(true);
    run("attention", test_attention);
    run("texts side by side", test_texts_side_by_side);
    return finish();
}
