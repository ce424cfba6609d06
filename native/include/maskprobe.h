/* maskprobe: the C ABI of the core, and the only thing Python sees.
 *
 * Objects are opaque and owned by the caller (X_init / X_free). Every function that can fail returns an
 * mp_status (or NULL) and leaves a message in mp_last_error(), which is kept per thread. Nothing throws
 * across this border, and nothing but an mp_guide calls back into the caller. One call runs one llama_decode at most.
 *
 * The declarations below the marker are read by the cffi build: plain C, one constant per #define. */
#ifndef MASKPROBE_H
#define MASKPROBE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MP_API __declspec(dllexport)
#else
#define MP_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct llama_context;
struct llama_sampler;

/* cdef: begin */
#define MP_MAX_MASKS 4       /* masks per node, k */
#define MP_ADJACENCY_WIDTH 8 /* candidates per token in an adjacency table */
#define MP_SOURCE_NGRAMS 1   /* of mp_speculation.sources */
#define MP_SOURCE_ADJACENCY 2
#define MP_SOURCE_HISTORY 4
#define MP_RELIABILITY_CLASSES 10 /* equal classes of probability, 0..0.1 first */

typedef enum mp_status {
    MP_OK = 0,
    MP_ERROR_ARGUMENT = 1, /* the caller passed something out of range */
    MP_ERROR_FILE = 2,     /* the GGUF cannot be read as expected */
    MP_ERROR_DECODE = 3,   /* llama_decode failed; the KV cache is back at the committed tokens */
    MP_ERROR_MEMORY = 4,   /* out of memory */
    MP_ERROR_BINDING = 5,  /* the llama.cpp function table is missing or does not fit */
    MP_ERROR_SAMPLING = 6  /* the sampler chain leaves no token to choose; else as after MP_ERROR_DECODE */
} mp_status;

MP_API const char * mp_last_error(void);

/* Binding. The core links no llama.cpp: it takes the addresses of the functions it names from the library
 * that is already loaded. batch_layout is sizeof(llama_batch) followed by the offsets of its seven fields. */
MP_API const char * mp_required_function(size_t index); /* NULL past the last one */
MP_API int mp_bind(const char * const * names, void * const * addresses, size_t n, const size_t * batch_layout);

/* Kernels of our own for products of weights in the CPU's memory and a few rows, which read each weight once for all
 * rows, and for attention, which reads keys and values once for several rows and heads. Their results are those of
 * llama.cpp's one-row kernels, bit for bit. They get in through the CPU backend's extra buffer types; without
 * mp_kernels_attach and mp_kernels_allow nothing changes. */
MP_API const char * mp_kernels_required_function(size_t index); /* NULL past the last one */
/* Takes the addresses of ggml functions, checks what the kernels rest on and puts them in the way of every CPU
 * backend of this process, for good; none is used before it is allowed. MP_ERROR_BINDING: they cannot get in. */
MP_API int mp_kernels_attach(const char * const * names, void * const * addresses, size_t n);
/* The instruction sets that kernels are chosen by: "avx512-vnni", "avx2-vnni", "avx2", "neon-i8mm", "neon-dotprod" or
 * "" (no kernels). On ARM, mp_kernels_attach may lower it to what ggml was built for. */
MP_API const char * mp_kernels_instructions(void);
/* Chooses as for a lesser processor, for tests; MP_ERROR_ARGUMENT for what this one lacks or nobody knows. */
MP_API int mp_kernels_limit_instructions(const char * instructions);
typedef struct mp_kernel {
    const char * name;   /* "q4_0", "q4_0 repacked", ..., "q4_0 fused" (rounds otherwise), "attention f16", ... */
    int32_t type;        /* ggml_type of the weights, or of the cache */
    int32_t repacked;    /* 1: weights in the CPU_REPACK buffer type's layout */
    int32_t k_multiple;  /* it takes weights of so many columns' multiple, ne[0] */
    int32_t n_multiple;  /* and so many rows' multiple, ne[1] */
    int32_t fewest_rows; /* of activations; below, and above most_rows, llama.cpp's own kernels go on */
    int32_t most_rows;
} mp_kernel;
MP_API int mp_kernels_get(size_t index, mp_kernel * kernel); /* MP_ERROR_ARGUMENT past the last one */
/* The kernels that may be used from now on: bit i for the i-th one; and those of them that prompts are computed by too.
 * None at first. */
MP_API int mp_kernels_allow(uint32_t kernels, uint32_t for_prompts);
MP_API uint32_t mp_kernels_allowed(void);
/* Whether passes that are not a session's take them, on any thread: 1 or 0, the start. */
MP_API int mp_kernels_set_default(int32_t use);
/* The same for the passes that the calling thread runs from now on: 1, 0, or -1 for the default. */
MP_API int mp_kernels_set_thread(int32_t use);
/* Products, or attentions, that the i-th kernel has computed in this process. */
MP_API int64_t mp_kernels_n_used(size_t index);

/* Rows of token_embd.weight, dequantized one at a time from the GGUF file(s). */
typedef struct mp_embeddings mp_embeddings;
MP_API mp_embeddings * mp_embeddings_init(const char * const * paths, size_t n_paths);
MP_API void mp_embeddings_free(mp_embeddings * embeddings);
MP_API int32_t mp_embeddings_n_embd(const mp_embeddings * embeddings);
MP_API int32_t mp_embeddings_n_vocab(const mp_embeddings * embeddings);
MP_API int mp_embeddings_rows(mp_embeddings * embeddings, const int32_t * tokens, size_t n,
                              float * rows /* [n, n_embd] */);
/* Adds the rows and their squares, in double, to two running sums of n_embd values each. */
MP_API int mp_embeddings_accumulate(mp_embeddings * embeddings, const int32_t * tokens, size_t n, double * sum,
                                    double * sum_of_squares);

/* Whoever keeps the grammar of an answer says what may follow the tokens committed so far and n drafted ones: a bit for
 * each token of the vocabulary, the lowest first, [(n_vocab + 31) / 32] words that are 0 when it is asked; and, if it
 * knows, the token with which the text that must follow begins, as the model would write it, else -1. Returns 0 where
 * it knows nothing. It is asked by mp_session_step alone, on the same thread, for drafts: what it says decides how fast
 * tokens come, never which. */
typedef int (*mp_guide)(void * data, const int32_t * drafted, size_t n, uint32_t * allowed, int32_t * forced);

typedef enum mp_tree {
    MP_TREE_NONE = 0,    /* plain one-row decoding */
    MP_TREE_STATIC = 1,  /* widths */
    MP_TREE_DYNAMIC = 2, /* [ESP, Algorithm 1] */
    MP_TREE_MIXED = 3    /* all sources, rows where they are expected to earn most */
} mp_tree;

/* How a generation drafts. */
typedef struct mp_speculation {
    int32_t tree;                 /* mp_tree */
    int32_t n_masks;              /* k, masks per node, 0..MP_MAX_MASKS; 0 only with MP_TREE_MIXED or _NONE */
    int32_t n_widths;             /* depths of a static tree, at most n_masks */
    int32_t widths[MP_MAX_MASKS]; /* K_1..K_n of a static tree */
    int32_t block;                /* most rows of root, drafted nodes and masks in one pass */
    const float * cost;           /* MP_TREE_MIXED: cost of a pass of 1..n_cost rows; copied */
    int32_t n_cost;
    float change;        /* MP_TREE_MIXED: what a pass costs more after one of another number of rows */
    int32_t sources;     /* MP_TREE_MIXED: MP_SOURCE_* that propose drafts beside the masks, or-ed */
    int32_t refine;      /* 1: correct the costs by what passes take; they are in ms then */
    int32_t prune;       /* 1: a candidate equal to its parent is replaced by the next best */
    float update;        /* lambda of [ESP, eq. 5] */
    const float * masks; /* start values, [n_masks, n_embd] in units of token_embd rows; copied */
    mp_guide guide;      /* NULL: there is no grammar, or nothing is known of it */
    void * guide_data;   /* handed to it; both must live as long as the generation */
} mp_speculation;

/* What one call decoded and committed. */
typedef struct mp_pass {
    const int32_t * tokens; /* committed tokens, [n_tokens]; valid until the next call on the session */
    int32_t n_tokens;       /* 0 while the prompt is not finished */
    const float * logp;     /* the model's own log-probabilities of the tokens, [n_tokens]; NULL if not asked for */
    const int32_t * top;    /* [n_tokens, n_top]: what it ranks highest in their places, best first; -1 beyond */
    const float * top_logp; /* [n_tokens, n_top] */
    int32_t n_top;
    int32_t n_accepted; /* the first n_accepted of them were drafted; the one after is the bonus token */
    int32_t n_drafted;  /* drafted nodes in the block */
    int32_t n_rows;     /* rows given to llama_decode, rows decoded again included */
    int32_t n_again;    /* rows of accepted tokens off the spine that were decoded again */
    int32_t n_kv_scans; /* full scans of the KV cache's cells for bookkeeping */
    int32_t n_probed;   /* 1: a mask had ranked candidates for the first of the tokens */
    float probe_logp;   /* the mask's log-probability of that token, floored where it was not ranked */
    float expected;     /* tokens that the pass was expected to commit; 0 where nobody asked */
    float price;        /* expected tokens that a pass had to bring per unit of cost */
    int32_t end;        /* 1: the last committed token ends the generation */
    double decode_ms;   /* inside llama_decode */
    double total_ms;    /* the whole call */
} mp_pass;

/* What the passes of a generation add up to; fields as in mp_pass. */
typedef struct mp_totals {
    int64_t n_drafted;
    int64_t n_rows;
    int64_t n_again;
    int64_t n_kv_scans;
    int64_t n_probed;
    double probe_logp;
    double expected;
    double decode_ms;
    /* Nodes that mixed trees drafted, by the probability with which they were expected to be accepted: how many,
     * how many were, and the sum of those probabilities. */
    int64_t said_n[MP_RELIABILITY_CLASSES];
    int64_t said_n_true[MP_RELIABILITY_CLASSES];
    double said_sum[MP_RELIABILITY_CLASSES];
} mp_totals;

/* A KV cache and the generation that runs in it. Borrows ctx and embeddings, which must outlive it.
 * embeddings = NULL: plain decoding only. embedding_scale: what mp_session_compare_paths found. */
typedef struct mp_session mp_session;
MP_API mp_session * mp_session_init(struct llama_context * ctx, mp_embeddings * embeddings, float embedding_scale);
MP_API void mp_session_free(mp_session * session);
/* What drafts a session's memory takes: any tree, or one chain of tokens with masks at its end. */
typedef struct mp_shape {
    int32_t is_chain;      /* 1: a chain; only MP_TREE_MIXED and _NONE are possible then */
    int32_t n_snapshots;   /* most drafted tokens and masks that snapshots of a recurrent state take back; 0: no such */
    int32_t decodes_again; /* 1: a chain that is not accepted as a whole is decoded again as far as it was */
} mp_shape;
MP_API int mp_session_shape(const mp_session * session, mp_shape * shape);
/* Largest difference between the logits of tokens decoded by id and by embedding row times scale, and the
 * standard deviation of the former. Needs a session whose KV cache is empty, and leaves it empty. */
MP_API int mp_session_compare_paths(mp_session * session, const int32_t * tokens, size_t n, float scale,
                                    float * largest_difference, float * deviation);
MP_API int mp_session_set_embedding_scale(mp_session * session, float scale);
/* Starts a generation: keeps the part of the KV cache that the prompt begins with. n_reused receives its
 * length; with reuse = 0 it is 0. At most max_tokens tokens are committed. sampler = NULL: greedy, the largest
 * logit. */
MP_API int mp_session_begin(mp_session * session, const int32_t * prompt, size_t n_prompt,
                            struct llama_sampler * sampler, const mp_speculation * speculation, int32_t max_tokens,
                            int reuse, size_t * n_reused);
/* From now on passes report the model's log-probabilities of their tokens, before any sampling, and of its n_top
 * highest-ranked ones; n_top = -1: none, which is how a session starts. */
MP_API int mp_session_report_logprobs(mp_session * session, int32_t n_top);
/* Decodes the next n_batch tokens of the prompt; the call that finishes it commits the first token. */
MP_API int mp_session_prefill(mp_session * session, mp_pass * pass);
/* One pass: draft, lay out the block, decode, verify, commit. */
MP_API int mp_session_step(mp_session * session, mp_pass * pass);
/* Sums over the passes of the present generation, prompt apart, so that a caller need not add up after each. */
MP_API int mp_session_totals(const mp_session * session, mp_totals * totals);
/* Milliseconds of one llama_decode of n_rows tokens; needs an empty KV cache and leaves it empty. */
MP_API int mp_session_time_rows(mp_session * session, int32_t n_rows, double * ms);
/* What follows each of n tokens when it stands alone after first (-1: after nothing): [n, MP_ADJACENCY_WIDTH]
 * candidates and their log-probabilities, best first. One llama_decode; needs an empty KV cache and leaves it
 * empty; n at most n_seq_max and n_ubatch - 1, and 1 where drafts are chains. */
MP_API int mp_session_rank_followers(mp_session * session, int32_t first, const int32_t * tokens, size_t n,
                                     int32_t * followers, float * logps);
/* Next-token candidates of every token alone: [n_vocab, MP_ADJACENCY_WIDTH] each, best first; copied. */
MP_API int mp_session_set_adjacency(mp_session * session, const int32_t * tokens, const float * logps);
/* A text that the model wrote, for the history; sessions add what they generate themselves. */
MP_API int mp_session_learn_text(mp_session * session, const int32_t * tokens, size_t n);
/* Forgets the KV cache. */
MP_API int mp_session_reset(mp_session * session);
/* Forgets what drafts and texts have taught (not an adjacency table that was set), as in a new session. */
MP_API int mp_session_forget(mp_session * session);
/* Whether its passes behind the prompt take our kernels: 1, 0, or -1 for what mp_kernels_set_default says (the
 * start). The matrices of prompts are always multiplied by llama.cpp's own kernels, as plain decoding does. */
MP_API int mp_session_set_kernels(mp_session * session, int32_t use);
/* Tokens in the KV cache. */
MP_API size_t mp_session_n_cached(const mp_session * session);
MP_API int mp_session_cached(const mp_session * session, int32_t * tokens /* [mp_session_n_cached] */);
/* Ends the present generation, if there is one, and keeps the KV cache for the next. */
MP_API int mp_session_end(mp_session * session);
/* Says what the caller has put into the KV cache of a session that was reset: these tokens, at positions 0.., in
 * cells of sequence 0 alone. */
MP_API int mp_session_restore(mp_session * session, const int32_t * tokens, size_t n);

/* Lanes: sessions that share the cells of one context, and whose rows share passes. Each commits what it would commit
 * alone. A lane is used as any session; its handle is freed by mp_session_free. Calls for lanes of one pool are made
 * one at a time; what a pass reports of a lane is not touched by passes without it. */
typedef struct mp_pool mp_pool;
typedef struct mp_pool_sizes {
    int32_t n_lanes;
    int32_t n_ids;    /* sequences of each lane, most leaves of its blocks; n_seq_max is at least n_lanes * n_ids + 2.
                       * With a recurrent state one, and n_seq_max is n_lanes */
    int32_t rows;     /* most rows of a pass, 2..n_ubatch; up to 63, CPUs round as for one row */
    int32_t piece;    /* rows that a pass with pieces of prompts should have */
    int32_t pad_from; /* a pass of one row gets one beside it when so many cells are in use; 0: never */
} mp_pool_sizes;
/* Borrows ctx and embeddings, as mp_session_init does. MP_ERROR_ARGUMENT, as NULL: the context does not fit, or has a
 * recurrent state without snapshots, which is one text's alone. */
MP_API mp_pool * mp_pool_init(struct llama_context * ctx, mp_embeddings * embeddings, float embedding_scale,
                              const mp_pool_sizes * sizes);
MP_API void mp_pool_free(mp_pool * pool);
MP_API mp_session * mp_pool_lane(mp_pool * pool, int32_t lane); /* each is asked for once */
/* One pass for n lanes whose generations go on: one llama_decode, and one for each lane if that fails. passes and
 * statuses: [n]; a lane that had to wait, for room or as a recurrent state was lost, has a pass without rows. A status
 * says what has become of one lane; the function's own that the call was wrong. */
MP_API int mp_pool_step(mp_pool * pool, const int32_t * lanes, size_t n, mp_pass * passes, int32_t * statuses);
/* What the lane's latest status other than MP_OK means. */
MP_API const char * mp_pool_error(const mp_pool * pool, int32_t lane);
/* As mp_session_set_kernels, for passes that mp_pool_step makes; they take them for prompts too. */
MP_API int mp_pool_set_kernels(mp_pool * pool, int32_t use);
/* Texts that have to leave the cells are kept in memory, up to so many bytes (none at first), and come back when a
 * prompt goes on from them. */
MP_API int mp_pool_park(mp_pool * pool, uint64_t n_bytes);
typedef struct mp_pool_figures {
    int64_t n_cells;       /* of the context */
    int64_t n_used;        /* of them, those left behind among them */
    int64_t n_compactions; /* how often cells were packed */
    int64_t n_parked;      /* texts in memory */
    int64_t parked_bytes;
} mp_pool_figures;
MP_API int mp_pool_get_figures(const mp_pool * pool, mp_pool_figures * figures);
/* cdef: end */

#ifdef __cplusplus
}
#endif

#endif
