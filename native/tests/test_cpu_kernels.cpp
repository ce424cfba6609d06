// The kernels' way into ggml, against a small ggml of the test's own: what keeps them out, which products are theirs,
// that all else goes where it went before, and that whoever switches in the middle of a graph changes nothing in it.
#include "mock_ggml.h"

using namespace mp;
using namespace mp::test;
using namespace mp::test::mock_ggml;

namespace {

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
    size_t plan(int n_threads) { return mock_ggml::plan(op, n_threads); }

    // As the threads of a computation.
    void compute(int n_threads, size_t work_bytes, bool use_ref = false) {
        results.assign(results.size(), 0.0f);
        const int n_barriers = mock_ggml::compute(op, n_threads, work_bytes, use_ref);
        // Nobody multiplies what others still pack.
        CHECK_EQ(n_barriers > 0, is_done());
    }

    bool is_done() const { return results[0] != of_stock; }

    // Whether the kernels compute it.
    bool is_ours(int n_threads = 1) {
        compute(n_threads, plan(n_threads));
        return is_done();
    }
};

// What the kernel says when asked itself, row by row.
std::vector<float> direct(const Product & product, const kernels::Kernel & kernel) {
    std::vector<float> out;
    for (int64_t r = 0; r < product.x.ne[1]; ++r) {
        const char * row =
            reinterpret_cast<const char *>(product.rows.data()) + static_cast<size_t>(r) * product.x.nb[1];
        const std::vector<float> y = direct_row(kernel, product.w.type, product.w.data, product.w.ne[0],
                                                product.w.ne[1], reinterpret_cast<const float *>(row));
        out.insert(out.end(), y.begin(), y.end());
    }
    return out;
}

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
    experts_name = "MUL_MAT";
    CHECK_ERROR(MP_ERROR_BINDING, "MUL_MAT_ID", attach(functions()));
    experts_name = "MUL_MAT_ID";
    attention_name = "ATTENTION";
    CHECK_ERROR(MP_ERROR_BINDING, "FLASH_ATTN_EXT", attach(functions()));
    attention_name = "FLASH_ATTN_EXT";
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
    CHECK(repack_type.context.load() == &stock_context); // nothing has changed
    repack_type.context = nullptr;
    CHECK_ERROR(MP_ERROR_BINDING, "laid out differently", attach(functions()));
    CHECK(repack_type.context.load() == nullptr);
    repack_type.context = &stock_context;
    CHECK(cpu_kernels::entry(0) == nullptr);
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
    product.compute(1, 77);
    CHECK_EQ(product.results[0], of_stock);
}

// The product of so many rows is computed by so many threads, of more that were planned for, to the kernel's own bits.
void check_product(size_t index, int64_t n_blocks, int n_rows, int n_threads, int n_planned) {
    const Scope scope(std::to_string(n_rows) + " rows, " + std::to_string(n_threads) + " threads");
    const cpu_kernels::Entry & entry = *cpu_kernels::entry(index);
    constexpr int64_t n = 200;
    const int64_t gap = n_rows % 2; // rows and results with something between them
    Product product(entry.type, n_blocks * entry.kernel->k_multiple, n, n_rows,
                    entry.repacked ? &repack_buffer : &host_buffer, gap);
    const int64_t before = cpu_kernels::n_used(index);
    const bool expected_ours = n_rows >= entry.kernel->fewest_rows;
    product.compute(n_threads, product.plan(n_planned));
    CHECK_EQ(product.is_done(), expected_ours);
    CHECK_EQ(cpu_kernels::n_used(index), before + (expected_ours ? 1 : 0));
    if (!expected_ours) {
        return;
    }
    const std::vector<float> expected = direct(product, *entry.kernel);
    size_t n_wrong = 0;
    for (int r = 0; r < n_rows; ++r) {
        const float * got = product.results.data() + r * (n + gap);
        n_wrong += std::memcmp(got, expected.data() + r * n, n * sizeof(float)) == 0 ? 0 : 1;
        n_wrong += gap == 1 && got[n] != 0.0f ? 1 : 0;
    }
    CHECK_EQ(n_wrong, size_t{0});
}

// Rows of several texts are computed as those of one.
void test_rows_of_texts() {
    const int found = entry_of(kernels::Weights::f32);
    if (found < 0) {
        return;
    }
    const auto by_texts = [](int64_t n_texts, int64_t n_rows) {
        Product product(ggml::f32, 128, 16, n_texts * n_rows, &host_buffer);
        for (ggml::Tensor * t : {&product.x, &product.op}) {
            t->ne[1] = n_rows;
            t->ne[2] = n_texts;
            t->nb[2] = static_cast<size_t>(n_rows) * t->nb[1];
        }
        product.compute(2, product.plan(2));
        return product;
    };
    for (const auto & [n_texts, n_rows] : {std::pair{3, 4}, {5, 1}}) {
        const Product product = by_texts(n_texts, n_rows);
        CHECK(product.is_done());
        Product one(ggml::f32, 128, 16, n_texts * n_rows, &host_buffer);
        CHECK(product.results == direct(one, *cpu_kernels::entry(static_cast<size_t>(found))->kernel));
    }
    CHECK(!by_texts(2, cpu_kernels::most_rows).is_done()); // too many
}

void test_results() {
    for (int i = 0; i < kernels::n_weights; ++i) {
        const auto weights = static_cast<kernels::Weights>(i);
        const Scope scope(kernels::name_of(weights));
        const int found = entry_of(weights);
        CHECK_EQ(found >= 0, kernels::find(weights, cpu_kernels::instructions(), has_avx512() != 0) != nullptr);
        if (found < 0) {
            continue;
        }
        const auto index = static_cast<size_t>(found);
        for (int n_rows = 1; n_rows <= cpu_kernels::most_rows; n_rows += n_rows < 18 ? 1 : 23) {
            for (const int n_threads : {1, 2, 3}) {
                check_product(index, 3, n_rows, n_threads, n_threads);
            }
        }
        check_product(index, 1, 5, 3, 3); // threads with nothing to pack
        check_product(index, 5, 8, 2, 4);
    }
}

void test_what_is_not_ours() {
    const auto plain = [] { return Product(ggml::f32, 128, 16, 4, &host_buffer); };
    CHECK(plain().is_ours());
    CHECK(!Product(ggml::f32, 128, 16, cpu_kernels::most_rows + 1, &host_buffer).is_ours());
    CHECK(!Product(ggml::f32, 128, 16, 0, &host_buffer).is_ours());
    CHECK(!Product(ggml::f32, 100, 16, 4, &host_buffer).is_ours());
    CHECK(!Product(ggml::q4_0, 128, 10, 4, &repack_buffer).is_ours());
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
    CHECK(!with([](Product & p) { p.w.ne[3] = 2; }));
    CHECK(!with([](Product & p) { p.x.ne[2] = 2, p.x.nb[2] += 4; })); // texts whose rows do not follow one another
    CHECK(!with([](Product & p) { p.op.ne[2] = 2, p.op.nb[2] += 4; }));
    CHECK(!with([](Product & p) { p.x.ne[3] = 2; }));
    CHECK(!with([](Product & p) { p.w.nb[1] += 4; }));
    CHECK(!with([](Product & p) { p.x.nb[0] = 8; }));
    CHECK(!with([](Product & p) { p.op.nb[0] = 8; }));
    CHECK(!with([](Product & p) { p.w.data = nullptr; }));
    CHECK(!with([](Product & p) { p.x.data = nullptr; }));
    CHECK(!with([](Product & p) { p.w.ne[0] = 0; }));
    CHECK(!with([](Product & p) { p.w.ne[1] = 0; }));
    CHECK(!with([](Product & p) { p.w.type = ggml::q8_k; }));
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

// Prompts: more rows, or any number where a thread's passes are a prompt's, for the kernels that are for them.
void test_prompts() {
    const int f32 = entry_of(kernels::Weights::f32);
    const int q4_0 = entry_of(kernels::Weights::q4_0);
    const auto product = [](int32_t type, int n_rows) {
        Product one(type, 128, 200, n_rows, &host_buffer, 1);
        one.compute(2, one.plan(2));
        return one;
    };
    cpu_kernels::allow(~0u, 1u << f32);
    for (const int n_rows : {cpu_kernels::most_rows + 1, 150, 512}) {
        const Scope scope(std::to_string(n_rows) + " rows");
        CHECK(!product(ggml::q4_0, n_rows).is_done());
        const Product one = product(ggml::f32, n_rows);
        CHECK(one.is_done());
        const std::vector<float> expected = direct(one, *cpu_kernels::entry(static_cast<size_t>(f32))->kernel);
        size_t n_wrong = 0;
        for (int r = 0; r < n_rows; ++r) {
            n_wrong += std::memcmp(one.results.data() + r * 201, expected.data() + r * 200, 800) == 0 ? 0 : 1;
            n_wrong += one.results[static_cast<size_t>(r) * 201 + 200] != 0.0f ? 1 : 0;
        }
        CHECK_EQ(n_wrong, size_t{0});
    }
    {
        const cpu_kernels::Use prompt(cpu_kernels::as_prompt);
        CHECK(product(ggml::f32, 4).is_done());
        CHECK(!product(ggml::q4_0, 4).is_done());
    }
    cpu_kernels::allow(1u << q4_0, ~0u); // for prompts only what may be used at all
    CHECK(!product(ggml::f32, 100).is_done());
    CHECK(product(ggml::q4_0, 100).is_done());
    cpu_kernels::allow(~0u, 0);
}

// What is decided when a graph is planned holds for its computation.
void test_switching() {
    Product product(ggml::f32, 128, 16, 4, &host_buffer);
    const size_t bytes = product.plan(2);
    cpu_kernels::set_default(false);
    product.compute(2, bytes);
    CHECK(product.is_done());
    CHECK(!product.is_ours(2)); // planned anew
    cpu_kernels::set_default(true);
    product.compute(2, 77); // as it was planned
    CHECK(!product.is_done());
    cpu_kernels::set_default(false);
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
    cpu_kernels::allow(cpu_kernels::allowed() & ~(1u << entry_of(kernels::Weights::f32)), 0);
    CHECK(!product.is_ours());
    CHECK(Product(ggml::q4_0, 128, 16, 4, &host_buffer).is_ours());
}

// Of two kernels for the same weights, the first that is allowed is taken.
void test_variants() {
    for (size_t i = 0; cpu_kernels::entry(i + 1) != nullptr; ++i) {
        const cpu_kernels::Entry & one = *cpu_kernels::entry(i);
        const cpu_kernels::Entry & other = *cpu_kernels::entry(i + 1);
        if (one.is_attention || one.type != other.type || one.repacked != other.repacked) {
            continue;
        }
        const Scope scope(other.name);
        for (const size_t allowed : {i, i + 1}) {
            cpu_kernels::allow(1u << allowed, 0);
            const int64_t before = cpu_kernels::n_used(allowed);
            Product product(one.type, one.kernel->k_multiple, 16, 4, one.repacked ? &repack_buffer : &host_buffer);
            product.compute(1, product.plan(1));
            CHECK_EQ(cpu_kernels::n_used(allowed), before + 1);
        }
        cpu_kernels::allow(3u << i, 0);
        const int64_t before = cpu_kernels::n_used(i);
        Product product(one.type, one.kernel->k_multiple, 16, 4, one.repacked ? &repack_buffer : &host_buffer);
        product.compute(1, product.plan(1));
        CHECK_EQ(cpu_kernels::n_used(i), before + 1);
    }
    cpu_kernels::allow(~0u, 0);
}

void test_instructions() {
    const uint32_t before = cpu_kernels::allowed();
    CHECK_ERROR(MP_ERROR_ARGUMENT, "avx99", cpu_kernels::limit_instructions("avx99"));
    CHECK_EQ(cpu_kernels::allowed(), before);
    Product planned(ggml::q4_0, 128, 16, 4, &host_buffer);
    CHECK_EQ(planned.is_ours(), has_kernels);
    for (const auto one :
         {kernels::Instructions::avx2, kernels::Instructions::avx2_vnni, kernels::Instructions::avx512_vnni,
          kernels::Instructions::neon_dotprod, kernels::Instructions::neon_i8mm}) {
        if (!kernels::processor_has(one)) {
            CHECK_ERROR(MP_ERROR_ARGUMENT, kernels::name_of(one),
                        cpu_kernels::limit_instructions(kernels::name_of(one)));
            continue;
        }
        cpu_kernels::allow(~0u, 0);
        cpu_kernels::limit_instructions(kernels::name_of(one));
        CHECK(cpu_kernels::instructions() == one);
        CHECK_EQ(cpu_kernels::allowed(), 0u);
        CHECK(!planned.is_ours());
        cpu_kernels::allow(~0u, 0);
        const int index = entry_of(kernels::Weights::q4_0);
        if (CHECK(index >= 0)) {
            CHECK(cpu_kernels::entry(static_cast<size_t>(index))->kernel ==
                  kernels::find(kernels::Weights::q4_0, one, false));
            CHECK(planned.is_ours());
        }
    }
    for (const int n : {1, 0}) {
        n_bfloat_products = n;
        cpu_kernels::limit_instructions(kernels::name_of(kernels::processor_instructions()));
        const auto best = kernels::processor_instructions();
        for (const bool fused : {false, true}) { // one of the two, as ggml was built
            const bool is_there = kernels::find(kernels::Weights::bf16, best, has_avx512() != 0, fused) != nullptr;
            CHECK_EQ(entry_called(kernels::name_of(kernels::Weights::bf16, fused)) >= 0, is_there && fused == (n == 1));
        }
    }
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
    cpu_kernels::allow(~0u, 0);
    if (has_kernels) {
        run("rows of texts", test_rows_of_texts);
        run("results", test_results);
        run("what_is_not_ours", test_what_is_not_ours);
        run("prompts", test_prompts);
        run("variants", test_variants);
        run("switching", test_switching);
    }
    run("instructions", test_instructions);
    return finish();
}
