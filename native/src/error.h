// The one exception of the core. It carries an mp_status and a message for the user; abi.h turns it
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

} // namespace mp
