// The kernels' way into ggml's CPU backend: its extra buffer types, which are asked first for every operation.
//
// The extra buffer type of repacked weights gets a context of ours, which claims products that kernels know and hands
// all else to the context that was there. A product is claimed while a graph is planned, by a mark in its tensor, which
// every thread of the computation then follows: what is switched in the meantime holds from the next graph on. Graphs
// are planned on the thread that called llama_decode, so a thread decides for its own passes.
//
// Knows ggml's structs and which kernels are allowed; arithmetic is native/kernels', policy Python's.
#pragma once

#include "kernels.h"

#include <cstddef>
#include <cstdint>

namespace mp::cpu_kernels {

constexpr int most_rows = 64; // more rows of activations are a prompt, for which few kernels are used

constexpr int most_entries = 32; // as many as a mask of them has bits
constexpr int n_attentions = 4;  // one for each type of the cache, with scores capped and not

// One kernel of the present instruction set, and the weights or the cache that it is for.
struct Entry {
    const char * name;
    const kernels::Kernel * kernel;
    int32_t type;
    bool repacked;
    bool is_attention;
    bool capped;
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

// Bit i: the i-th entry may be used, and for prompts too.
void allow(uint32_t entries, uint32_t for_prompts);
uint32_t allowed();

// Products that the i-th entry has computed.
int64_t n_used(size_t index);

// Whether ggml's own attention is in the graphs that this thread has planned since it was asked last, or none of ours:
// with several threads that one parts the keys of a single row among them, and rounds otherwise.
bool ggml_attends();

// Whether passes use kernels: by thread (1, 0, as_prompt, or -1 for the default), and the default. As a prompt products
// are computed by the kernels for prompts alone, whatever their rows, so that their bits do not go by it.
constexpr int as_prompt = 2;
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
