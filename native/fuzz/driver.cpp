// Drives a fuzz target where there is no libFuzzer: replays files, then makes inputs for a while, blindly. Input i of a
// seed is the same in every run, so a finding is repeated with --seed S --first I --executions 1; its bytes are saved
// too, and the process that dies says which input it was.
//
//   fuzz_X [--seconds N] [--executions N] [--seed S] [--first I] [files or folders of inputs ...]
#include "fuzz.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

extern "C" int LLVMFuzzerInitialize(int * argc, char *** argv);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

#if defined(__GNUC__)
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));
// The callback is the address sanitizer's: the others end as an assertion does.
extern "C" const char * __ubsan_default_options();
const char * __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }
#endif

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t longest = 1024;

Bytes input; // the present one
std::string name;

void save_input() {
    std::ofstream("found.bin", std::ios::binary).write(reinterpret_cast<const char *>(input.data()), input.size());
    std::cerr << "the input was " << name << "; it is saved in found.bin\n";
}

void die(int signal) {
    save_input();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

void watch_for_death() {
#if defined(__GNUC__)
    if (__sanitizer_set_death_callback != nullptr) {
        __sanitizer_set_death_callback(save_input);
        std::signal(SIGABRT, die);
        return;
    }
#endif
    for (const int signal : {SIGABRT, SIGSEGV, SIGFPE, SIGILL}) {
        std::signal(signal, die);
    }
}

Bytes random_bytes(std::mt19937 & rng, size_t n) {
    Bytes bytes(n);
    for (uint8_t & byte : bytes) {
        byte = static_cast<uint8_t>(rng());
    }
    return bytes;
}

// A few edits: bits, bytes, numbers at their limits, pieces removed, repeated or made up.
Bytes mutated(std::mt19937 & rng, Bytes bytes) {
    for (int32_t edits = 1 + mp::test::below(rng, 6); edits > 0; --edits) {
        const size_t at = rng() % (bytes.size() + 1);
        const size_t n = std::min<size_t>(1 + rng() % 16, bytes.size() - at);
        const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        const auto end = begin + static_cast<std::ptrdiff_t>(n);
        switch (rng() % 6) {
        case 0:
            if (n > 0) {
                *begin = static_cast<uint8_t>(*begin ^ 1u << rng() % 8);
            }
            break;
        case 1: std::fill(begin, end, static_cast<uint8_t>(rng())); break;
        case 2: std::fill(begin, end, rng() % 2 == 0 ? 0x00 : 0xff); break;
        case 3: bytes.erase(begin, end); break;
        case 4: {
            const Bytes piece(begin, end);
            bytes.insert(begin, piece.begin(), piece.end());
            break;
        }
        default: {
            const Bytes piece = random_bytes(rng, 1 + rng() % 16);
            bytes.insert(begin, piece.begin(), piece.end());
        }
        }
    }
    bytes.resize(std::min(bytes.size(), longest));
    return bytes;
}

Bytes make_input(uint32_t seed, uint32_t i, const std::vector<Bytes> & corpus) {
    std::seed_seq sequence{seed, i};
    std::mt19937 rng(sequence);
    if (!corpus.empty() && rng() % 2 == 0) {
        return mutated(rng, corpus[rng() % corpus.size()]);
    }
    return random_bytes(rng, rng() % longest);
}

void execute(const Bytes & bytes, const std::string & called) {
    input = bytes;
    name = called;
    // A copy of exactly this size, so that a sanitizer sees what reads past it.
    const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

std::vector<std::pair<std::string, Bytes>> read_files(const std::vector<std::string> & paths) {
    std::vector<std::filesystem::path> files;
    for (const std::string & path : paths) {
        if (std::filesystem::is_directory(path)) {
            for (const auto & entry : std::filesystem::directory_iterator(path)) {
                files.push_back(entry.path());
            }
        } else {
            files.emplace_back(path);
        }
    }
    std::sort(files.begin(), files.end());
    std::vector<std::pair<std::string, Bytes>> inputs;
    for (const auto & file : files) {
        std::ifstream in(file, std::ios::binary);
        if (!in) {
            mp::test::fail(__FILE__, __LINE__, "cannot read " + file.string());
        }
        inputs.emplace_back(file.string(), Bytes(std::istreambuf_iterator<char>(in), {}));
    }
    return inputs;
}

} // namespace

int main(int argc, char ** argv) {
    double seconds = 1e9;
    unsigned long executions = 1ul << 31;
    unsigned long seed = 1;
    unsigned long first = 0;
    bool bounded = false;
    std::vector<std::string> paths;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const char * value = i + 1 < argc ? argv[i + 1] : "0";
        if (option == "--seconds") {
            seconds = std::atof(value);
        } else if (option == "--executions") {
            executions = std::strtoul(value, nullptr, 10);
        } else if (option == "--seed") {
            seed = std::strtoul(value, nullptr, 10);
        } else if (option == "--first") {
            first = std::strtoul(value, nullptr, 10);
        } else {
            paths.push_back(option);
            continue;
        }
        bounded = bounded || option == "--seconds" || option == "--executions";
        ++i;
    }
    if (!bounded) {
        executions = 0; // files alone
    }
    watch_for_death();
    LLVMFuzzerInitialize(&argc, &argv);

    std::vector<Bytes> corpus;
    for (const auto & [file, bytes] : read_files(paths)) {
        execute(bytes, file);
        corpus.push_back(bytes);
    }
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    unsigned long i = first;
    for (; i - first < executions && elapsed() < seconds; ++i) {
        execute(make_input(static_cast<uint32_t>(seed), static_cast<uint32_t>(i), corpus),
                "seed " + std::to_string(seed) + ", input " + std::to_string(i));
    }
    std::cout << corpus.size() << " files and " << i - first << " executions in " << elapsed() << " s; ";
    return mp::test::finish();
}
