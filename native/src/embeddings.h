// Rows of the token embedding table, read one at a time from the GGUF and dequantized by ggml. Knows the
// file and the tensor; never holds the table. Reading instead of mapping keeps the resident set flat and
// turns a file that shrinks underneath us into an error instead of a fault.
#pragma once

#include "llama_api.h"

#include <fstream>
#include <string>
#include <vector>

namespace mp {

class Embeddings {
public:
    // Looks for token_embd.weight in the files of one model (several when it is split).
    explicit Embeddings(const std::vector<std::string> & paths);

    int32_t n_embd() const { return n_embd_; }
    int32_t n_vocab() const { return n_vocab_; }

    // Writes the rows of the given tokens to out, [n, n_embd].
    void rows(const int32_t * tokens, size_t n, float * out);

private:
    bool open(const std::string & path);

    std::ifstream file_;
    std::string path_;
    uint64_t offset_ = 0; // where row 0 begins in the file, in bytes
    size_t row_bytes_ = 0;
    int32_t n_embd_ = 0;
    int32_t n_vocab_ = 0;
    int32_t type_ = 0;                          // ggml_type
    const ggml_type_traits * traits_ = nullptr; // how type_ is dequantized
    std::vector<char> raw_;                     // one row as stored
};

} // namespace mp
