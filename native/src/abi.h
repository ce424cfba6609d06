// What the functions of the C ABI share: exceptions become codes and a message. The functions are in abi_*.cpp, by
// object; they turn C arrays into vectors and have no logic of their own.
#pragma once

#include "embeddings.h"
#include "error.h"
#include "maskprobe.h"
#include "session.h"

#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

struct mp_embeddings {
    mp::Embeddings rows;
    explicit mp_embeddings(const std::vector<std::string> & paths) : rows(paths) {}
};

struct mp_session {
    mp::Session session;
    int kernels = -1; // as mp::cpu_kernels::set_thread
    mp_session(llama_context * ctx, mp::Embeddings * embeddings, float scale) : session(ctx, embeddings, scale) {}
    mp_session(std::shared_ptr<mp::Pool> pool, size_t lane) : session(std::move(pool), lane) {}
};

namespace mp::abi {

// Leaves the message for mp_last_error.
int fail(mp_status status, const char * message);

template <typename Body> int guarded(Body body) {
    try {
        body();
        return MP_OK;
    } catch (const Error & error) {
        return fail(error.status, error.what());
    } catch (const std::bad_alloc &) {
        return fail(MP_ERROR_MEMORY, "out of memory");
    } catch (const std::exception & error) {
        return fail(MP_ERROR_ARGUMENT, error.what());
    }
}

template <typename Object, typename Body> Object * guarded_new(Body body) {
    Object * object = nullptr;
    guarded([&] { object = body(); });
    return object;
}

inline void require(bool condition, const char * message) {
    if (!condition) {
        throw Error(MP_ERROR_ARGUMENT, message);
    }
}

} // namespace mp::abi
