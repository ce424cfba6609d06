// What the tests of the C ABI share: checks of a status and its message, and a session with sound arguments.
#pragma once

#include "maskprobe.h"

#include "session_fixture.h"

namespace mp::test {

// The call fails with this status and leaves a message that holds the text.
inline void check_fails(int line, int status, mp_status expected, const std::string & text) {
    const Scope scope("line " + std::to_string(line));
    CHECK_EQ(status, static_cast<int>(expected));
    if (!CHECK(std::string(mp_last_error()).find(text) != std::string::npos)) {
        std::cerr << "    the message: " << mp_last_error() << "\n";
    }
}
#define CHECK_FAILS(expected, text, call) check_fails(__LINE__, (call), (expected), (text))
#define CHECK_OK(call) CHECK_EQ((call), static_cast<int>(MP_OK))

// Sound arguments of a begin, for a test to spoil one by one.
struct Call {
    MockLlama llama;
    MockGguf file{llama};
    mp_embeddings * embeddings = nullptr;
    mp_session * session = nullptr;
    MockSampler sampler;
    Ids prompt{3, 1, 4, 1, 5};
    std::vector<float> masks;
    std::vector<float> free_rows = std::vector<float>(16, 1.0f);
    mp_speculation speculation{};
    size_t n_reused = 77;
    mp_pass pass{};

    explicit Call(uint32_t n_ubatch = 128, bool with_embeddings = true) {
        llama.n_ubatch = n_ubatch;
        const std::string path = file.path();
        const char * paths[] = {path.c_str()};
        embeddings = with_embeddings ? mp_embeddings_init(paths, 1) : nullptr;
        session = mp_session_init(llama.context(), embeddings, 1.0f);
        masks = mask_start(llama, MP_MAX_MASKS);
        speculation.tree = MP_TREE_STATIC;
        speculation.n_masks = 2;
        speculation.n_widths = 2;
        speculation.widths[0] = 3;
        speculation.widths[1] = 2;
        speculation.block = 18;
        speculation.update = 0.1f;
        speculation.masks = masks.data();
    }
    // A mixed tree without masks, from these sources.
    void draft_with_free_rows(int32_t sources) {
        speculation = mp_speculation{};
        speculation.tree = MP_TREE_MIXED;
        speculation.block = static_cast<int32_t>(free_rows.size());
        speculation.cost = free_rows.data();
        speculation.n_cost = static_cast<int32_t>(free_rows.size());
        speculation.sources = sources;
    }
    ~Call() {
        mp_session_free(session);
        mp_embeddings_free(embeddings);
    }
    Call(const Call &) = delete;
    Call & operator=(const Call &) = delete;

    int begin(int32_t max_tokens = 12) {
        return mp_session_begin(session, prompt.data(), prompt.size(), sampler.get(), &speculation, max_tokens, 1,
                                &n_reused);
    }
};

} // namespace mp::test
