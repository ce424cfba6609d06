// The KV cache's bookkeeping, one call at a time: what a new prompt keeps, what verification leaves of a block, whose
// cells carry which sequences, what a failure and a memory that cannot be cut leave, and what all that counts as.
#include "error.h"
#include "kv_cache.h"
#include "session_fixture.h"

using namespace mp;
using namespace mp::test;

namespace {

// A cache over a mock of its own, with a few tokens in it.
struct Cached {
    MockLlama llama;
    Context context{llama.context()};
    KvCache cache{context};

    explicit Cached(const Ids & tokens) { add(tokens); }
    Cached(const Cached &) = delete;
    Cached & operator=(const Cached &) = delete;

    void add(const Ids & tokens) {
        Block block = layout_prompt(tokens, static_cast<int32_t>(cache.size()), cache.n_sequences(), true);
        context.decode(block, nullptr);
        cache.commit(block, 1);
    }
    // Decodes a block of this tree under the last of the pending tokens.
    Block decode(const Ids & pending, const DraftTree & tree) {
        const Ids no_masks(tree.size(), 0);
        Block block = layout_block(pending, tree, no_masks, static_cast<int32_t>(cache.size()), cache.n_sequences());
        cache.prepare(block);
        context.decode(block, nullptr);
        return block;
    }
    void check(const Ids & tokens) {
        CHECK_EQ(cache.tokens(), tokens);
        check_kv(llama, tokens, cache.n_sequences());
        CHECK_EQ(cache.n_scans(), int64_t{llama.n_scans});
    }
};

// 7 is the root; its likeliest path is 7 10 11 12, beside which stand 20 and 21.
DraftTree fork() {
    DraftTree tree(7);
    tree.add(0, 10, -0.1f);
    tree.add(1, 11, -0.1f);
    tree.add(2, 12, -0.1f);
    tree.add(0, 20, -3.0f);
    tree.add(1, 21, -3.0f);
    return tree;
}

void prompts_keep_what_they_share() {
    Cached c({3, 1, 4, 1, 5});
    c.check({3, 1, 4, 1, 5});
    CHECK_EQ(c.cache.keep_prefix({3, 1, 4, 1, 5, 9}), size_t{5}); // nothing to cut
    CHECK_EQ(c.cache.n_scans(), int64_t{0});
    CHECK_EQ(c.cache.keep_prefix({3, 1, 4, 1, 5}), size_t{4}); // the last token's logits are needed
    c.check({3, 1, 4, 1});
    CHECK_EQ(c.cache.keep_prefix({3, 1, 9, 1}), size_t{2});
    c.check({3, 1});
    CHECK_EQ(c.cache.keep_prefix({4, 1}), size_t{0});
    c.check({});
    CHECK_EQ(c.cache.n_scans(), int64_t{2}); // forgetting everything needs none
}

// However much of the spine is accepted, that much stays, and every cell carries every sequence.
void blocks_leave_their_accepted_spine() {
    const Ids kept{10, 11, 12};
    for (size_t n_accepted = 0; n_accepted <= kept.size(); ++n_accepted) {
        const Scope scope(std::to_string(n_accepted) + " accepted");
        Cached c({3, 1, 4});
        const Block block = c.decode({6, 7}, fork()); // 6 is decoded again, before the root
        CHECK_EQ(c.cache.n_sequences(), 3);
        CHECK_EQ(c.cache.commit(block, 1 + n_accepted), 2 + n_accepted);
        Ids expected{3, 1, 4, 6, 7};
        expected.insert(expected.end(), kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(n_accepted));
        c.check(expected);
        // Two scans to grow; then one for all drafts, or one for each sequence to strip and each to share.
        CHECK_EQ(c.cache.n_scans(), int64_t{n_accepted == 0 ? 2 + 1 : 2 + 3 + 2});
        c.add({8, 9}); // goes on where that ends
        expected.insert(expected.end(), {8, 9});
        c.check(expected);
    }
}

void a_row_alone_leaves_nothing_to_clean_up() {
    Cached c({3, 1, 4});
    const Block block = c.decode({7}, DraftTree(7));
    c.cache.commit(block, 1);
    c.check({3, 1, 4, 7});
    CHECK_EQ(c.cache.n_scans(), int64_t{0});
}

void failures_are_undone() {
    Cached c({3, 1, 4});
    c.decode({7}, fork());
    c.cache.abandon(3);
    c.check({3, 1, 4});
    const Block block = c.decode({7}, fork());
    c.llama.can_cut = false;
    CHECK_ERROR(MP_ERROR_DECODE, "cannot take drafts back", c.cache.commit(block, 2));
    c.cache.abandon(3); // of which nothing is left
    c.check({});
    CHECK_EQ(c.cache.n_sequences(), 1);
}

void a_memory_that_cannot_be_cut_is_emptied() {
    Cached c({3, 1, 4});
    c.llama.can_cut = false;
    CHECK_EQ(c.cache.keep_prefix({3, 1, 4, 1}), size_t{3});
    CHECK_EQ(c.cache.keep_prefix({3, 1, 5}), size_t{0});
    c.check({});
}

} // namespace

int main() {
    bind_llama_api(mock_api());
    run("prompts keep what they share", prompts_keep_what_they_share);
    run("blocks leave their accepted spine", blocks_leave_their_accepted_spine);
    run("a row alone", a_row_alone_leaves_nothing_to_clean_up);
    run("failures are undone", failures_are_undone);
    run("a memory that cannot be cut", a_memory_that_cannot_be_cut_is_emptied);
    return finish();
}
