// Counts what llama.cpp moves between host and devices: preloaded, it stands in front of ggml's own functions.
// Built and read by __main__.py. Needs to know the first two fields of ggml_tensor alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct tensor {
    int type;
    void * buffer;
};

struct counts {
    long to_device_bytes, to_device_calls;
    long to_host_bytes, to_host_calls;
    long graphs;      // parts of a pass that a backend computes at once
    long synchronize; // waits for a backend
};

static struct counts counts;
static _Thread_local int depth; // a copy may set or get inside

struct counts traffic_take(void) {
    struct counts taken = counts;
    memset(&counts, 0, sizeof counts);
    return taken;
}

// ggml's own function. Python loads it for llama.cpp alone, so RTLD_NEXT does not see it.
static void * ggml(const char * name) {
    static void * library;
    if (library == NULL) {
        library = dlopen("libggml-base.so.0", RTLD_NOW | RTLD_NOLOAD);
    }
    return dlsym(library, name);
}

#define GGML(name) ((typeof(&name)) ggml(#name))

static bool on_device(const struct tensor * tensor) {
    bool (*is_host)(void *) = (bool (*)(void *)) ggml("ggml_backend_buffer_is_host");
    return tensor->buffer != NULL && !is_host(tensor->buffer);
}

static void add(bool to_device, size_t size) {
    if (to_device) {
        counts.to_device_bytes += (long) size;
        counts.to_device_calls += 1;
    } else {
        counts.to_host_bytes += (long) size;
        counts.to_host_calls += 1;
    }
}

static size_t bytes(const struct tensor * tensor) {
    return ((size_t (*)(const void *)) ggml("ggml_nbytes"))(tensor);
}

void ggml_backend_tensor_set(struct tensor * tensor, const void * data, size_t offset, size_t size) {
    if (depth == 0 && on_device(tensor)) {
        add(true, size);
    }
    ++depth;
    GGML(ggml_backend_tensor_set)(tensor, data, offset, size);
    --depth;
}

void ggml_backend_tensor_set_async(void * backend, struct tensor * tensor, const void * data, size_t offset,
                                   size_t size) {
    if (depth == 0 && on_device(tensor)) {
        add(true, size);
    }
    ++depth;
    GGML(ggml_backend_tensor_set_async)(backend, tensor, data, offset, size);
    --depth;
}

void ggml_backend_tensor_get(const struct tensor * tensor, void * data, size_t offset, size_t size) {
    if (depth == 0 && on_device(tensor)) {
        add(false, size);
    }
    ++depth;
    GGML(ggml_backend_tensor_get)(tensor, data, offset, size);
    --depth;
}

void ggml_backend_tensor_get_async(void * backend, const struct tensor * tensor, void * data, size_t offset,
                                   size_t size) {
    if (depth == 0 && on_device(tensor)) {
        add(false, size);
    }
    ++depth;
    GGML(ggml_backend_tensor_get_async)(backend, tensor, data, offset, size);
    --depth;
}

static void add_copy(const struct tensor * from, const struct tensor * to) {
    if (depth == 0 && on_device(from) != on_device(to)) {
        add(on_device(to), bytes(from));
    }
}

void ggml_backend_tensor_copy(const struct tensor * from, struct tensor * to) {
    add_copy(from, to);
    ++depth;
    GGML(ggml_backend_tensor_copy)(from, to);
    --depth;
}

void ggml_backend_tensor_copy_async(void * backend_from, void * backend_to, const struct tensor * from,
                                    struct tensor * to) {
    add_copy(from, to);
    ++depth;
    GGML(ggml_backend_tensor_copy_async)(backend_from, backend_to, from, to);
    --depth;
}

int ggml_backend_graph_compute_async(void * backend, void * graph) {
    ++counts.graphs;
    return GGML(ggml_backend_graph_compute_async)(backend, graph);
}

void ggml_backend_synchronize(void * backend) {
    counts.synchronize += depth == 0;
    ++depth;
    GGML(ggml_backend_synchronize)(backend);
    --depth;
}
