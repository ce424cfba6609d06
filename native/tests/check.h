// Checks for the native tests: each prints where it failed and what it saw, counts, and lets the test go on.
// A program runs its tests with run() and returns finish(). Scope adds a line (a seed, a case) to the
// failures inside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace mp::test {

inline int n_failures = 0;
inline int n_checks = 0;
inline std::vector<std::string> scopes;

struct Scope {
    explicit Scope(const std::string & text) { scopes.push_back(text); }
    ~Scope() { scopes.pop_back(); }
    Scope(const Scope &) = delete;
    Scope & operator=(const Scope &) = delete;
};

template <typename T> std::string show(const T & value) {
    std::ostringstream out;
    out << value;
    return out.str();
}
inline std::string show(bool value) { return value ? "true" : "false"; }
inline std::string show(int8_t value) { return std::to_string(value); }
template <typename T> std::string show(const std::vector<T> & values) {
    std::string text = "{";
    for (const T & value : values) {
        text += (text.size() > 1 ? ", " : "") + show(value);
    }
    return text + "}";
}

inline void fail(const char * file, int line, const std::string & what) {
    constexpr int most_shown = 40; // a broken core fails everywhere; the first failures tell enough
    if (++n_failures <= most_shown) {
        std::cerr << file << ":" << line << ": " << what << "\n";
        for (const std::string & scope : scopes) {
            std::cerr << "    in " << scope << "\n";
        }
    }
}

template <typename A, typename B>
bool check_eq(const A & a, const B & b, const char * text, const char * file, int line) {
    ++n_checks;
    if (a == b) {
        return true;
    }
    fail(file, line, std::string(text) + ": " + show(a) + " is not " + show(b));
    return false;
}

// Runs one test; an exception that escapes it is a failure.
template <typename Test> void run(const char * name, Test test) {
    const Scope scope(name);
    try {
        test();
    } catch (const std::exception & error) {
        fail(__FILE__, __LINE__, std::string("exception: ") + error.what());
    }
}

// A program that checked nothing has failed too.
inline int finish() {
    std::cout << n_checks << " checks, " << n_failures << " failures\n";
    return n_failures == 0 && n_checks > 0 ? 0 : 1;
}

// Uniform in 0..n-1; unlike the distributions of <random> the same everywhere.
inline int32_t below(std::mt19937 & rng, int32_t n) { return static_cast<int32_t>(rng() % static_cast<uint32_t>(n)); }

} // namespace mp::test

#define CHECK(condition)                                                                                               \
    (++mp::test::n_checks, static_cast<bool>(condition)                                                                \
                               ? true                                                                                  \
                               : (mp::test::fail(__FILE__, __LINE__, "CHECK(" #condition ") failed"), false))
#define CHECK_EQ(a, b) mp::test::check_eq((a), (b), #a " == " #b, __FILE__, __LINE__)
// The expression throws an mp::Error with this status and this text in its message.
#define CHECK_ERROR(code, text, expression)                                                                            \
    do {                                                                                                               \
        ++mp::test::n_checks;                                                                                          \
        try {                                                                                                          \
            (void)(expression);                                                                                        \
            mp::test::fail(__FILE__, __LINE__, #expression " did not throw");                                          \
        } catch (const mp::Error & error_) {                                                                           \
            CHECK_EQ(static_cast<int>(error_.status), static_cast<int>(code));                                         \
            if (std::string(error_.what()).find(text) == std::string::npos) {                                          \
                mp::test::fail(__FILE__, __LINE__, std::string("message lacks \"") + (text) + "\": " + error_.what()); \
            }                                                                                                          \
        }                                                                                                              \
    } while (false)
