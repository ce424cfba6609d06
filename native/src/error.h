// The one exception of the core. It carries an mp_status and a message for the user; maskprobe.cpp turns it
// into a return code at the ABI border. Nothing else knows about error codes.
#pragma once

#include "maskprobe.h"

#include <stdexcept>
#include <string>

namespace mp {

struct Error : std::runtime_error {
    mp_status status;
    Error(mp_status code, const std::string & message) : std::runtime_error(message), status(code) {}
};

// What a code of llama_decode other than 0 means.
inline std::string decode_failure(int32_t code) {
    switch (code) {
    case 1: return "llama_decode found no room in the KV cache for the batch (1)";
    case 2: return "llama_decode was aborted (2)";
    case -1: return "llama_decode rejected the batch as invalid (-1)";
    default: return "llama_decode failed in the backend (" + std::to_string(code) + ")";
    }
}

} // namespace mp
