#include "abi.h"
#include "cpu_backend/cpu_kernels.h"

using namespace mp::abi;

const char * mp_kernels_required_function(size_t index) { return mp::cpu_kernels::required_function(index); }

int mp_kernels_attach(const char * const * names, void * const * addresses, size_t n) {
    return guarded([&] {
        require(names != nullptr && addresses != nullptr, "arguments must not be NULL");
        mp::cpu_kernels::attach(names, addresses, n);
    });
}

const char * mp_kernels_instructions(void) { return mp::kernels::name_of(mp::cpu_kernels::instructions()); }

int mp_kernels_limit_instructions(const char * instructions) {
    return guarded([&] {
        require(instructions != nullptr, "instructions must not be NULL");
        mp::cpu_kernels::limit_instructions(instructions);
    });
}

int mp_kernels_get(size_t index, mp_kernel * out) {
    return guarded([&] {
        const mp::cpu_kernels::Entry * entry = mp::cpu_kernels::entry(index);
        require(entry != nullptr && out != nullptr, "there are not that many kernels");
        const mp::kernels::Kernel & kernel = *entry->kernel;
        *out = {entry->name,       entry->type,        entry->repacked ? 1 : 0,   kernel.k_multiple,
                kernel.n_multiple, kernel.fewest_rows, mp::cpu_kernels::most_rows};
    });
}

int mp_kernels_allow(uint32_t kernels, uint32_t for_prompts) {
    return guarded([&] { mp::cpu_kernels::allow(kernels, for_prompts); });
}

uint32_t mp_kernels_allowed(void) { return mp::cpu_kernels::allowed(); }

int mp_kernels_set_default(int32_t use) {
    return guarded([&] {
        require(use == 0 || use == 1, "use is 0 or 1");
        mp::cpu_kernels::set_default(use == 1);
    });
}

int mp_kernels_set_thread(int32_t use) {
    return guarded([&] {
        require(use >= -1 && use <= 1, "use is 1, 0 or -1");
        mp::cpu_kernels::set_thread(use);
    });
}

int64_t mp_kernels_n_used(size_t index) { return mp::cpu_kernels::n_used(index); }
