// The kernels' way into ggml's CPU backend: its extra buffer types, which are asked first for every operation.
//
// The extra buffer type of repacked weights gets a context of ours, which claims products that kernels know and hands
// all else to the context that was there. A product is claimed while a graph is planned, by a mark in its tensor, which
// every thread of the computation then follows: what is switched in the meantime holds from the next graph on. Graphs
// are planned on the thread that called llama_decode, so a thread decides for its own passes.
//
// Knows ggml's structs and which kernels are allowed; arithmetic is native/kernels', policy Python's.
#pragma once

#include "../kernels/kernels.h"

#include <cstddef>
#include <cstdint>

namespace mp::cpu_kernels {

constexpr int most_rows = 64; // of activations; more are a prompt

constexpr int most_entries = 2 * kernels::n_weights + 1; // with their fused variants, and attention

// One kernel of the present instruction set, and the weights it is for.
struct Entry {
    const char * name;
    const kernels::Kernel * kernel;
    int32_t type;
    bool repacked;
};

// The i-th ggml function that attach needs, nullptr past the last.
const char * required_function(size_t index);

// Checks what is known of ggml and gets in. Throws Error (MP_ERROR_BINDING); nothing has changed then.
void attach(const char * const * names, void * const * addresses, size_t n);

// Chooses kernels as for a lesser processor; none is allowed after. Throws Error (MP_ERROR_ARGUMENT).
void limit_instructions(const char * name);
kernels::Instructions instructions();

// nullptr past the last.
const Entry * entry(size_t index);

// Bit i: the i-th entry may be used.
void allow(uint32_t entries);
uint32_t allowed();

// Products that the i-th entry has computed.
int64_t n_used(size_t index);

// Whether passes use kernels: by thread (1, 0, attention_alone, or -1 for the default), and the default.
constexpr int attention_alone = 2;
void set_default(bool use);
int set_thread(int use); // returns what it was

// The calling thread's passes use kernels, or not, until the end of the scope.
class Use {
public:
    explicit Use(int use) : before_(set_thread(use)) {}
    ~Use() { set_thread(before_); }
    Use(const Use &) = delete;
    Use & operator=(const Use &) = delete;

private:
    int before_;
};

} // namespace mp::cpu_kernels
