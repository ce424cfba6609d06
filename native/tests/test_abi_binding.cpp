// The C ABI: what binding accepts and refuses, and what holds before anything is bound.
#include "abi_fixture.h"
#include "mock_binding.h"

#include <limits>

using namespace mp;
using namespace mp::test;

namespace {

// Runs first: nothing is bound yet.
void unbound() {
    MockLlama llama;
    CHECK(mp_session_init(llama.context(), nullptr, 1.0f) == nullptr);
    CHECK(std::string(mp_last_error()).find("not bound") != std::string::npos);
    const char * path = "nowhere.gguf";
    CHECK(mp_embeddings_init(&path, 1) == nullptr);
    CHECK(std::string(mp_last_error()).find("not bound") != std::string::npos);
}

void required_functions() {
    const MockTable table;
    for (size_t i = 0; i < table.names.size(); ++i) {
        CHECK_EQ(std::string(mp_required_function(i)), std::string(table.names[i]));
    }
    CHECK(mp_required_function(table.names.size()) == nullptr);
    CHECK(mp_required_function(std::numeric_limits<size_t>::max()) == nullptr);
}

void binding() {
    for (size_t i = 0; i < MockTable().names.size(); ++i) {
        MockTable without;
        const std::string name = without.names[i];
        without.addresses[i] = nullptr;
        CHECK_FAILS(MP_ERROR_BINDING, "llama.cpp lacks " + name, without.bind());
        without.names.erase(without.names.begin() + static_cast<std::ptrdiff_t>(i));
        without.addresses.erase(without.addresses.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK_FAILS(MP_ERROR_BINDING, "llama.cpp lacks " + name, without.bind());
        CHECK_EQ(std::string(mp_last_error()), "llama.cpp lacks " + name); // that one and no other
    }
    MockTable none;
    none.names.resize(0);
    CHECK_FAILS(MP_ERROR_BINDING, "llama_decode, llama_synchronize", none.bind());
    for (size_t i = 0; i < batch_layout.size(); ++i) {
        std::vector<size_t> other = batch_layout;
        other[i] += 4;
        CHECK_FAILS(MP_ERROR_BINDING, "value " + std::to_string(i), MockTable().bind(other));
    }
    const MockTable table;
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_bind(nullptr, table.addresses.data(), 1, batch_layout.data()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_bind(table.names.data(), nullptr, 1, batch_layout.data()));
    CHECK_FAILS(MP_ERROR_ARGUMENT, "NULL", mp_bind(table.names.data(), table.addresses.data(), 1, nullptr));

    MockTable more; // functions that the core does not know are no harm, nor is their order
    more.names.insert(more.names.begin(), "llama_unheard_of");
    more.addresses.insert(more.addresses.begin(), nullptr);
    CHECK_OK(more.bind());
    MockTable half;
    half.addresses[0] = nullptr;
    CHECK(half.bind() != MP_OK);
    MockLlama llama; // the table bound before is still there
    mp_session * session = mp_session_init(llama.context(), nullptr, 1.0f);
    CHECK(session != nullptr);
    mp_session_free(session);
}

} // namespace

int main() {
    run("unbound", unbound);
    run("required functions", required_functions);
    run("binding", binding);
    return finish();
}
