// Sessions in threads of their own: each has its model, its tokens and its message, and none waits for another. Run
// under -fsanitize=thread this finds what they share.
#include "maskprobe.h"
#include "session_fixture.h"

#include <atomic>
#include <thread>

using namespace mp;
using namespace mp::test;

namespace {

constexpr int n_threads = 4;
constexpr int n_rounds = 12;
constexpr int32_t max_tokens = 20;

// One thread's own things. What it finds is checked after it has ended: the checks themselves are not shared.
struct Worker {
    MockLlama llama;
    MockGguf file{llama};
    mp_embeddings * embeddings = nullptr;
    mp_session * session = nullptr;
    std::vector<float> masks = mask_start(llama, 2);
    std::vector<float> cost = std::vector<float>(18, 1.0f);
    Ids prompt;
    Ids expected;
    std::vector<Ids> tokens;           // of each round
    std::vector<std::string> messages; // after each provoked error

    explicit Worker(int index) : prompt{index, 3, index + 7, 1, 3} {
        llama.n_remembered = 2;
        const std::string path = file.path();
        const char * paths[] = {path.c_str()};
        embeddings = mp_embeddings_init(paths, 1);
        session = mp_session_init(llama.context(), embeddings, 1.0f);
        expected = plain_decode(llama, prompt, 0, max_tokens);
    }
    ~Worker() {
        mp_session_free(session);
        mp_embeddings_free(embeddings);
    }
    Worker(const Worker &) = delete;
    Worker & operator=(const Worker &) = delete;

    Ids generate() {
        mp_speculation speculation{};
        speculation.tree = MP_TREE_MIXED;
        speculation.n_masks = 2;
        speculation.block = 18;
        speculation.cost = cost.data();
        speculation.n_cost = 18;
        speculation.sources = MP_SOURCE_NGRAMS | MP_SOURCE_ADJACENCY;
        speculation.update = 0.1f;
        speculation.masks = masks.data();
        size_t n_reused = 0;
        mp_pass pass{};
        Ids all;
        int status =
            mp_session_begin(session, prompt.data(), prompt.size(), nullptr, &speculation, max_tokens, 1, &n_reused);
        while (status == MP_OK && all.size() < static_cast<size_t>(max_tokens)) {
            status = all.empty() ? mp_session_prefill(session, &pass) : mp_session_step(session, &pass);
            all.insert(all.end(), pass.tokens, pass.tokens + (status == MP_OK ? pass.n_tokens : 0));
        }
        return all;
    }

    // An error whose message names this worker's own number.
    std::string message(int32_t token) {
        std::vector<float> row(llama.n_embd);
        return mp_embeddings_rows(embeddings, &token, 1, row.data()) == MP_OK ? "" : mp_last_error();
    }

    void work(std::atomic<int> & waiting) {
        --waiting;
        while (waiting > 0) {
            std::this_thread::yield(); // so that all begin at once
        }
        for (int round = 0; round < n_rounds; ++round) {
            const std::string said = message(1000 + prompt[0]);
            tokens.push_back(generate());
            messages.push_back(said == mp_last_error() ? said : "another's: " + std::string(mp_last_error()));
        }
    }
};

void sessions_in_threads() {
    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < n_threads; ++i) {
        workers.push_back(std::make_unique<Worker>(i));
    }
    std::atomic<int> waiting{n_threads};
    std::vector<std::thread> threads;
    for (auto & worker : workers) {
        threads.emplace_back([&] { worker->work(waiting); });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    for (const auto & worker : workers) {
        CHECK_EQ(worker->tokens, std::vector<Ids>(n_rounds, worker->expected));
        const std::string own = "token id " + std::to_string(1000 + worker->prompt[0]) + " is outside 0..39";
        CHECK_EQ(worker->messages, std::vector<std::string>(n_rounds, own));
        CHECK_EQ(worker->llama.violations, std::vector<std::string>());
    }
}

// A session may move from thread to thread, as a server's workers do.
void a_session_moves() {
    Worker worker(5);
    for (int round = 0; round < 3; ++round) {
        std::thread([&] { worker.tokens.push_back(worker.generate()); }).join();
    }
    CHECK_EQ(worker.tokens, std::vector<Ids>(3, worker.expected));
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("sessions in threads", sessions_in_threads);
    run("a session moves", a_session_moves);
    return finish();
}
