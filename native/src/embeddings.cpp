#include "embeddings.h"

#include "error.h"

#include <cstring>
#include <filesystem>
#include <memory>

namespace mp {

namespace {

constexpr const char * tensor_name = "token_embd.weight";
constexpr int32_t ggml_type_f32 = 0;

std::filesystem::path to_path(const std::string & utf8) { return std::filesystem::u8path(utf8); }

} // namespace

Embeddings::Embeddings(const std::vector<std::string> & paths) {
    for (const std::string & path : paths) {
        if (open(path)) {
            return;
        }
    }
    throw Error(MP_ERROR_FILE, "no " + std::string(tensor_name) + " in " + (paths.empty() ? "no file" : paths.front()));
}

bool Embeddings::open(const std::string & path) {
    const LlamaApi & api = llama_api();
    const std::unique_ptr<gguf_context, void (*)(gguf_context *)> gguf(
        api.gguf_init_from_file(path.c_str(), gguf_init_params{true, nullptr}), api.gguf_free);
    if (!gguf) {
        throw Error(MP_ERROR_FILE, "cannot read " + path + " as GGUF");
    }
    const int64_t tensor = api.gguf_find_tensor(gguf.get(), tensor_name);
    if (tensor < 0) {
        return false;
    }
    const int64_t * shape = api.gguf_get_tensor_ne(gguf.get(), tensor);
    type_ = api.gguf_get_tensor_type(gguf.get(), tensor);
    traits_ = api.ggml_get_type_traits(type_);
    if (type_ != ggml_type_f32 && (traits_ == nullptr || traits_->to_float == nullptr)) {
        throw Error(MP_ERROR_FILE, path + ": " + tensor_name + " has a type that cannot be dequantized");
    }
    if (shape[0] <= 0 || shape[0] > INT32_MAX || shape[1] <= 0 || shape[1] > INT32_MAX) {
        throw Error(MP_ERROR_FILE, path + ": " + tensor_name + " has an impossible shape");
    }
    n_embd_ = static_cast<int32_t>(shape[0]);
    n_vocab_ = static_cast<int32_t>(shape[1]);
    row_bytes_ = api.ggml_row_size(type_, n_embd_);
    offset_ = api.gguf_get_data_offset(gguf.get()) + api.gguf_get_tensor_offset(gguf.get(), tensor);

    std::error_code error;
    const uint64_t file_size = std::filesystem::file_size(to_path(path), error);
    if (error || offset_ > file_size || (file_size - offset_) / row_bytes_ < static_cast<uint64_t>(n_vocab_)) {
        throw Error(MP_ERROR_FILE, path + " is truncated: it ends inside " + tensor_name);
    }
    file_.rdbuf()->pubsetbuf(nullptr, 0); // rows are scattered; a buffer would only read ahead in vain
    file_.open(to_path(path), std::ios::binary);
    if (!file_) {
        throw Error(MP_ERROR_FILE, "cannot open " + path);
    }
    path_ = path;
    raw_.resize(row_bytes_);
    return true;
}

void Embeddings::rows(const int32_t * tokens, size_t n, float * out) {
    for (size_t i = 0; i < n; ++i, out += n_embd_) {
        if (tokens[i] < 0 || tokens[i] >= n_vocab_) {
            throw Error(MP_ERROR_ARGUMENT,
                        "token id " + std::to_string(tokens[i]) + " is outside 0.." + std::to_string(n_vocab_ - 1));
        }
        file_.seekg(static_cast<std::streamoff>(offset_ + row_bytes_ * static_cast<uint64_t>(tokens[i])));
        file_.read(raw_.data(), static_cast<std::streamsize>(row_bytes_));
        if (!file_) {
            file_.clear();
            throw Error(MP_ERROR_FILE, "cannot read the embedding row of token " + std::to_string(tokens[i]) +
                                           " from " + path_ + ": has the file changed?");
        }
        if (type_ == ggml_type_f32) {
            std::memcpy(out, raw_.data(), row_bytes_);
        } else {
            traits_->to_float(raw_.data(), out, n_embd_);
        }
    }
}

} // namespace mp
