// What the mock's files ask of each other: its model, the checks of a batch, its memory and the state in it.
#pragma once

#include "mock_llama.h"

#include <utility>

namespace mp::test::mock {

// The mock behind any of llama.cpp's handles.
inline MockLlama & self(const void * handle) { return *static_cast<MockLlama *>(const_cast<void *>(handle)); }

// --- mock_model.cpp ---------------------------------------------------------------------------------

uint64_t mix(uint64_t h, uint64_t v);
float unit(uint64_t h);
int32_t argmax(const std::vector<float> & logits);
// The hash of a text with one more cell.
uint64_t append(uint64_t before, int32_t pos, uint64_t state);
uint64_t input_of(const MockRow & row);
// What the rows see, what their cells hold then, and logits of output rows.
void compute(MockLlama & m, std::vector<MockRow> & rows);

// --- mock_batch.cpp ---------------------------------------------------------------------------------

std::vector<MockRow> read_rows(MockLlama & m, const llama_batch & batch);
// What is wrong with the rows of a batch of token ids or of embeddings, or nothing.
std::string check_batch(const MockLlama & m, const std::vector<MockRow> & rows, bool by_id);

// --- mock_memory.cpp --------------------------------------------------------------------------------

// The positions that memory holds of a sequence, {-1, -1} for none.
std::pair<int32_t, int32_t> range_in_memory(const MockLlama & m, int32_t sequence);
void remove_cells(MockLlama & m, int32_t sequence, int32_t p0, int32_t p1);
// Takes cells for the rows, n_ubatch at a time; false, with nothing changed, if there is no room.
bool place(MockLlama & m, std::vector<MockRow> & rows);
void add_memory_functions(LlamaApi & api);

// --- mock_state.cpp ---------------------------------------------------------------------------------

// llama.cpp's seq_rm where there is a recurrent state. False: it refuses. What it accepts and does wrong is a
// violation.
bool remove_state(MockLlama & m, int32_t sequence, int32_t p0, int32_t p1);
// What is wrong with rows for a recurrent state, or nothing.
std::string check_state(const MockLlama & m, const std::vector<MockRow> & rows);
void add_state_functions(LlamaApi & api);

// --- mock_sampler.cpp -------------------------------------------------------------------------------

void add_sampler_functions(LlamaApi & api);

} // namespace mp::test::mock
