#include "abi.h"

using namespace mp::abi;

mp_embeddings * mp_embeddings_init(const char * const * paths, size_t n_paths) {
    return guarded_new<mp_embeddings>([&] {
        require(paths != nullptr, "paths must not be NULL");
        return new mp_embeddings(std::vector<std::string>(paths, paths + n_paths));
    });
}

void mp_embeddings_free(mp_embeddings * embeddings) { delete embeddings; }

int32_t mp_embeddings_n_embd(const mp_embeddings * embeddings) {
    return embeddings == nullptr ? 0 : embeddings->rows.n_embd();
}

int32_t mp_embeddings_n_vocab(const mp_embeddings * embeddings) {
    return embeddings == nullptr ? 0 : embeddings->rows.n_vocab();
}

int mp_embeddings_rows(mp_embeddings * embeddings, const int32_t * tokens, size_t n, float * rows) {
    return guarded([&] {
        require(embeddings != nullptr && tokens != nullptr && rows != nullptr, "arguments must not be NULL");
        embeddings->rows.rows(tokens, n, rows);
    });
}

int mp_embeddings_accumulate(mp_embeddings * embeddings, const int32_t * tokens, size_t n, double * sum,
                             double * sum_of_squares) {
    return guarded([&] {
        require(embeddings != nullptr && tokens != nullptr && sum != nullptr && sum_of_squares != nullptr,
                "arguments must not be NULL");
        std::vector<float> row(embeddings->rows.n_embd());
        for (size_t i = 0; i < n; ++i) {
            embeddings->rows.rows(tokens + i, 1, row.data());
            for (size_t j = 0; j < row.size(); ++j) {
                sum[j] += row[j];
                sum_of_squares[j] += static_cast<double>(row[j]) * row[j];
            }
        }
    });
}
