// The C ABI: what the calls about CPU kernels refuse, and which passes of a session use kernels.
#include "abi_fixture.h"
#include "cpu_backend/cpu_kernels.h"
#include "mock_binding.h"

#include <limits>

using namespace mp;
using namespace mp::test;

namespace {

// The kernels themselves have tests of their own; nothing is attached here.
void kernel_arguments() {
    size_t n = 0;
    while (mp_kernels_required_function(n) != nullptr) {
        ++n;
    }
    CHECK(n > 0);
    CHECK(mp_kernels_required_function(std::numeric_limits<size_t>::max()) == nullptr);
    const char * name = "ggml_op_name";
    void * address = nullptr;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_kernels_attach(nullptr, &address, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_kernels_attach(&name, nullptr, 1));
    CHECK_FAILS(MP_ERROR_BINDING, "ggml lacks", mp_kernels_attach(&name, &address, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_kernels_limit_instructions(nullptr));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "avx99", mp_kernels_limit_instructions("avx99"));
    mp_kernel kernel{};
    CHECK_FAILS(MP_ERROR_ARGUMENT, "not that many", mp_kernels_get(0, &kernel));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "not that many", mp_kernels_get(std::numeric_limits<size_t>::max(), &kernel));
    CHECK_EQ(mp_kernels_n_used(std::numeric_limits<size_t>::max()), int64_t{0});
    CHECK_FAILS(MP_ERROR_ARGUMENT, "0 or 1", mp_kernels_set_default(-1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "0 or 1", mp_kernels_set_default(2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_kernels_set_thread(-2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_kernels_set_thread(2));
    CHECK_EQ(mp_kernels_allowed(), 0u);
    CHECK_OK(mp_kernels_allow(5, 0));
    CHECK_EQ(mp_kernels_allowed(), 5u);
    CHECK_OK(mp_kernels_allow(0, 0));
    CHECK_OK(mp_kernels_limit_instructions(mp_kernels_instructions()));
    Call c;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_session_set_kernels(nullptr, 1));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_session_set_kernels(c.session, 2));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "-1", mp_session_set_kernels(c.session, -2));
}

int kernels_on_this_thread() {
    const int use = cpu_kernels::set_thread(-1);
    cpu_kernels::set_thread(use);
    return use;
}

std::vector<int> decoded_with; // by each llama_decode
int32_t (*decode_of_mock)(llama_context *, llama_batch) = nullptr;

int32_t decode_and_tell(llama_context * ctx, llama_batch batch) {
    decoded_with.push_back(kernels_on_this_thread());
    return decode_of_mock(ctx, batch);
}

// What a session asks for holds while its own passes run, but not for prompts, and never for its thread's other passes.
void sessions_choose_kernels() {
    MockTable table;
    for (size_t i = 0; i < table.names.size(); ++i) {
        if (std::string(table.names[i]) == "llama_decode") {
            decode_of_mock = reinterpret_cast<int32_t (*)(llama_context *, llama_batch)>(table.addresses[i]);
            table.addresses[i] = reinterpret_cast<void *>(decode_and_tell);
        }
    }
    CHECK_OK(table.bind());
    for (const int outside : {-1, 0, 1}) {
        for (const int wanted : {-1, 0, 1}) {
            Call c;
            CHECK_OK(mp_kernels_set_thread(outside));
            CHECK_OK(mp_session_set_kernels(c.session, wanted));
            double ms = 0.0;
            decoded_with.clear();
            CHECK_OK(mp_session_time_rows(c.session, 8, &ms));
            CHECK(!decoded_with.empty());
            CHECK_EQ(decoded_with, std::vector<int>(decoded_with.size(), wanted));
            CHECK_OK(c.begin());
            decoded_with.clear();
            CHECK_OK(mp_session_prefill(c.session, &c.pass));
            CHECK_EQ(decoded_with, std::vector<int>{wanted == 1 ? cpu_kernels::as_prompt : 0});
            CHECK_EQ(kernels_on_this_thread(), outside);
            decoded_with.clear();
            CHECK_OK(mp_session_step(c.session, &c.pass));
            CHECK_EQ(decoded_with, std::vector<int>{wanted});
            CHECK_EQ(kernels_on_this_thread(), outside);
        }
    }
    CHECK_OK(mp_kernels_set_thread(-1));
    CHECK_OK(MockTable().bind());
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("kernel arguments", kernel_arguments);
    run("sessions choose kernels", sessions_choose_kernels);
    return finish();
}
