// The gguf_* and ggml_* functions of the mock: a registry of files with one tensor each. Only the tensor's
// bytes are real, at an offset that is not zero in a file with other bytes around them.
#include "mock_llama.h"

#include <cstring>
#include <fstream>
#include <random>

namespace mp::test {

namespace {

struct Entry {
    std::string tensor;
    int64_t shape[2];
    int32_t type;
};

std::map<std::string, Entry> & registry() {
    static std::map<std::string, Entry> entries;
    return entries;
}

int n_open = 0;

// Data begins at 64 and the tensor 32 further on, so that leaving out either offset reads the wrong bytes.
constexpr size_t data_offset = 64;
constexpr size_t tensor_offset = 32;

const Entry * entry(const gguf_context * ctx) { return reinterpret_cast<const Entry *>(ctx); }

void i8_to_float(const void * x, float * y, int64_t k) {
    const int8_t * values = static_cast<const int8_t *>(x);
    for (int64_t i = 0; i < k; ++i) {
        y[i] = static_cast<float>(values[i]) * 0.5f;
    }
}

constexpr ggml_type_traits traits[] = {{"f32", 1, 0, 4, false, nullptr, nullptr},
                                       {"i8", 1, 0, 1, true, i8_to_float, nullptr},
                                       {"opaque", 1, 0, 1, true, nullptr, nullptr}};

std::vector<char> f32_table(const MockLlama & llama) {
    std::vector<char> bytes;
    for (int32_t token = 0; token < llama.n_vocab; ++token) {
        const std::vector<float> row = llama.embedding_row(token);
        const char * raw = reinterpret_cast<const char *>(row.data());
        bytes.insert(bytes.end(), raw, raw + row.size() * sizeof(float));
    }
    return bytes;
}

} // namespace

MockGguf::MockGguf(const std::string & tensor, int64_t n_embd, int64_t n_rows, int32_t type,
                   const std::vector<char> & data) {
    std::random_device device;
    const std::filesystem::path directory =
        std::filesystem::temp_directory_path() /
        ("maskprobe-test-" + std::to_string(device()) + "-" + std::to_string(device()));
    std::filesystem::create_directories(directory);
    // Paths are UTF-8 at the ABI; a name that is not ASCII keeps that honest.
    path_ = directory / std::filesystem::u8path(u8"m\u00f6del.bin");
    std::ofstream file(path_, std::ios::binary);
    file << std::string(data_offset + tensor_offset, '\x7e');
    file.write(data.data(), static_cast<std::streamsize>(data.size()));
    registry()[path()] = Entry{tensor, {n_embd, n_rows}, type};
}

MockGguf::MockGguf(const MockLlama & llama)
    : MockGguf("token_embd.weight", llama.n_embd, llama.n_vocab, type_f32, f32_table(llama)) {}

MockGguf::~MockGguf() {
    registry().erase(path());
    std::error_code ignored;
    std::filesystem::remove_all(path_.parent_path(), ignored);
}

void MockGguf::truncate(size_t n_bytes_less) {
    std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - n_bytes_less);
}

int n_open_gguf() { return n_open; }

void add_gguf_functions(LlamaApi & api) {
    api.gguf_init_from_file = [](const char * path, gguf_init_params) -> gguf_context * {
        const auto found = registry().find(path);
        if (found == registry().end()) {
            return nullptr;
        }
        ++n_open;
        return reinterpret_cast<gguf_context *>(&found->second);
    };
    api.gguf_free = [](gguf_context *) { --n_open; };
    api.gguf_find_tensor = [](const gguf_context * ctx, const char * name) -> int64_t {
        return entry(ctx)->tensor == name ? 5 : -1; // not 0, so that nobody takes the id for a flag
    };
    api.gguf_get_data_offset = [](const gguf_context *) { return data_offset; };
    api.gguf_get_tensor_offset = [](const gguf_context *, int64_t) { return tensor_offset; };
    api.gguf_get_tensor_ne = [](const gguf_context * ctx, int64_t) { return &entry(ctx)->shape[0]; };
    api.gguf_get_tensor_type = [](const gguf_context * ctx, int64_t) { return entry(ctx)->type; };
    api.ggml_row_size = [](int32_t type, int64_t n) { return traits[type].type_size * static_cast<size_t>(n); };
    api.ggml_get_type_traits = [](int32_t type) { return &traits[type]; };
}

} // namespace mp::test
