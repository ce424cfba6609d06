#include "abi.h"
#include "llama_api.h"

using namespace mp::abi;

namespace {

thread_local std::string last_error;

} // namespace

int mp::abi::fail(mp_status status, const char * message) {
    last_error = message;
    return status;
}

const char * mp_last_error(void) { return last_error.c_str(); }

const char * mp_required_function(size_t index) { return mp::required_function(index); }

int mp_bind(const char * const * names, void * const * addresses, size_t n, const size_t * batch_layout) {
    return guarded([&] {
        require(names != nullptr && addresses != nullptr && batch_layout != nullptr, "arguments must not be NULL");
        mp::bind_by_name(names, addresses, n, batch_layout);
    });
}
