// What a fuzzing engine calls, be it libFuzzer or driver.cpp. A check that fails ends the process, as a crash does.
#include "fuzz.h"

#include <cstdlib>

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    fuzz_begin();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    mp::test::Input in(data, size);
    mp::test::run("an input", [&] { fuzz_one(in); });
    if (mp::test::n_failures > 0) {
        std::abort();
    }
    return 0;
}
