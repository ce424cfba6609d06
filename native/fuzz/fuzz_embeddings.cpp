// The reader of embedding rows over headers of any kind and files of any length that change underneath: it gives the
// rows that are in the file, or an error. Headers are those that gguf_init_from_file lets through; parsing them is
// llama.cpp's.
#include "embeddings.h"
#include "error.h"
#include "fuzz.h"
#include "mock_llama.h"

#include <filesystem>
#include <fstream>

using namespace mp;
using namespace mp::test;

namespace {

constexpr int64_t block_size = 32;
constexpr size_t block_bytes = 34; // two bytes that say nothing, then a byte a value

void bytes_to_float(const void * x, float * y, int64_t k) {
    const int8_t * values = static_cast<const int8_t *>(x);
    std::copy_n(values, k, y);
}

void blocks_to_float(const void * x, float * y, int64_t k) {
    const char * block = static_cast<const char *>(x);
    for (int64_t i = 0; i < k; i += block_size, block += block_bytes) {
        bytes_to_float(block + 2, y + i, block_size);
    }
}

constexpr ggml_type_traits traits[] = {{"f32", 1, 0, 4, false, nullptr, nullptr},
                                       {"bytes", 1, 0, 1, true, bytes_to_float, nullptr},
                                       {"blocks", block_size, 0, block_bytes, true, blocks_to_float, nullptr},
                                       {"opaque", 1, 0, 2, true, nullptr, nullptr},
                                       {"unknown", 1, 0, 1, true, nullptr, nullptr}};
constexpr int32_t unknown = 4;

struct Header {
    bool readable = true;
    bool has_tensor = true;
    int64_t shape[2] = {1, 1};
    int32_t type = 0;
    size_t data_offset = 0;
    size_t tensor_offset = 0;
};

Header header;
int n_open = 0;
std::filesystem::path file;

// Not what gguf_init_from_file itself refuses.
bool is_parsed() {
    const int64_t * shape = header.shape;
    return header.readable && shape[0] >= 0 && shape[1] >= 0 && shape[0] % traits[header.type].blck_size == 0 &&
           (shape[1] < 2 || shape[0] <= INT64_MAX / 8 / shape[1]);
}

LlamaApi api_with_headers() {
    LlamaApi api = mock_api();
    api.gguf_init_from_file = [](const char *, gguf_init_params) -> gguf_context * {
        if (!is_parsed()) {
            return nullptr;
        }
        ++n_open;
        return reinterpret_cast<gguf_context *>(&header);
    };
    api.gguf_free = [](gguf_context *) { --n_open; };
    api.gguf_find_tensor = [](const gguf_context *, const char *) -> int64_t { return header.has_tensor ? 5 : -1; };
    api.gguf_get_data_offset = [](const gguf_context *) { return header.data_offset; };
    api.gguf_get_tensor_offset = [](const gguf_context *, int64_t) { return header.tensor_offset; };
    api.gguf_get_tensor_ne = [](const gguf_context *, int64_t) -> const int64_t * { return header.shape; };
    api.gguf_get_tensor_type = [](const gguf_context *, int64_t) { return header.type; };
    api.ggml_row_size = [](int32_t type, int64_t n) {
        return traits[type].type_size * static_cast<size_t>(n / traits[type].blck_size);
    };
    api.ggml_get_type_traits = [](int32_t type) { return type == unknown ? nullptr : &traits[type]; };
    return api;
}

void write(const std::vector<char> & bytes) {
    std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::vector<char> file_bytes(Input & in) {
    std::vector<char> bytes(in.below(700));
    uint32_t state = in.bits();
    for (char & byte : bytes) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<char>(state >> 24);
    }
    return bytes;
}

// The row as it lies in the file, or nothing if the file ends before.
std::vector<float> row_of(const std::vector<char> & bytes, int64_t token) {
    const size_t n = static_cast<size_t>(header.shape[0]);
    const size_t row_bytes = llama_api().ggml_row_size(header.type, header.shape[0]);
    const size_t at = header.data_offset + header.tensor_offset + row_bytes * static_cast<size_t>(token);
    if (at + row_bytes > bytes.size()) {
        return {};
    }
    std::vector<float> row(n);
    if (header.type == 0) {
        std::memcpy(row.data(), bytes.data() + at, row_bytes);
    } else {
        traits[header.type].to_float(bytes.data() + at, row.data(), static_cast<int64_t>(n));
    }
    return row;
}

bool should_open(const std::vector<char> & bytes) {
    if (!is_parsed() || !header.has_tensor || header.type > 2 || header.shape[0] < 1 || header.shape[1] < 1 ||
        header.shape[0] > INT32_MAX || header.shape[1] > INT32_MAX) {
        return false;
    }
    const double end = static_cast<double>(header.data_offset) + static_cast<double>(header.tensor_offset) +
                       static_cast<double>(llama_api().ggml_row_size(header.type, header.shape[0])) *
                           static_cast<double>(header.shape[1]);
    return end <= static_cast<double>(bytes.size());
}

void read_some(Embeddings & embeddings, Input & in, const std::vector<char> & bytes) {
    for (int32_t i = 0; i < 8; ++i) {
        const int32_t token = in.rarely(4) ? static_cast<int32_t>(in.bits()) : in.below(embeddings.n_vocab() + 1);
        std::vector<float> row(embeddings.n_embd()); // exactly as large as needed
        const bool in_table = token >= 0 && token < embeddings.n_vocab();
        const std::vector<float> expected = in_table ? row_of(bytes, token) : std::vector<float>();
        if (expected.empty()) {
            CHECK_ERROR(in_table ? MP_ERROR_FILE : MP_ERROR_ARGUMENT, "", embeddings.rows(&token, 1, row.data()));
        } else {
            embeddings.rows(&token, 1, row.data());
            CHECK(std::memcmp(row.data(), expected.data(), row.size() * sizeof(float)) == 0);
        }
    }
}

} // namespace

void fuzz_begin() {
    bind_llama_api(api_with_headers());
    file = std::filesystem::temp_directory_path() / ("maskprobe-fuzz-" + std::to_string(std::random_device()()));
    std::atexit([] {
        std::error_code ignored;
        std::filesystem::remove(file, ignored);
    });
}

void fuzz_one(Input & in) {
    header = Header();
    header.readable = !in.rarely(16);
    header.has_tensor = !in.rarely(16);
    header.type = in.below(5);
    for (int64_t & n : header.shape) {
        n = in.number();
    }
    if (header.type == 2 && in.coin()) {
        header.shape[0] = block_size * (1 + in.below(4));
    }
    header.data_offset = in.rarely(16) ? in.bits() * size_t{65536} : static_cast<size_t>(in.below(128));
    header.tensor_offset = in.rarely(16) ? in.bits() * size_t{65536} : static_cast<size_t>(in.below(128));
    std::vector<char> bytes = file_bytes(in);
    write(bytes);
    if (!should_open(bytes)) {
        CHECK_ERROR(MP_ERROR_FILE, file.u8string(), Embeddings({file.u8string()}));
        CHECK_EQ(n_open, 0);
        return;
    }
    Embeddings embeddings({file.u8string()});
    CHECK_EQ(n_open, 0);
    read_some(embeddings, in, bytes);
    bytes = file_bytes(in); // shorter, longer or otherwise
    write(bytes);
    read_some(embeddings, in, bytes);
}
