"""Stock llama.cpp: plain greedy decoding by llama_cpp alone, as a program that imports nothing of maskprobe.

The only argument is JSON: model, n_ctx, n_threads, n_gpu_layers. Each line of standard input asks, by the token ids of
a prompt and a limit; each token of the answer is a line of output, with the milliseconds since the first; null ends it.
With a limit of 0 the only line says how far apart the two best logits behind the prompt are.
"""

from __future__ import annotations

import heapq
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import llama_cpp

_N_BATCH = 512


def main() -> None:
    """Loads the model, says so with a line, and answers until standard input ends."""
    settings = json.loads(sys.argv[1])
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = settings["n_gpu_layers"]
    model = llama_cpp.llama_model_load_from_file(settings["model"].encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = settings["n_ctx"]
    params.n_batch = params.n_ubatch = _N_BATCH
    params.n_threads = params.n_threads_batch = settings["n_threads"]
    ctx = llama_cpp.llama_init_from_model(model, params) if model else None
    if not ctx:
        sys.exit("stock llama.cpp cannot load the model")
    _say("ready")
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["max_tokens"] == 0:
            _say(_gap(model, ctx, asked["prompt"]))
            continue
        for answer in _decode(model, ctx, asked["prompt"], asked["max_tokens"]):
            _say(answer)
        _say(None)


def _decode(model: Any, ctx: Any, prompt: list[int], max_tokens: int) -> Iterator[tuple[int, float]]:
    """The tokens of the answer, without the one that ends it, and when they were there."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    sampler = llama_cpp.llama_sampler_init_greedy()
    _begin(ctx, prompt)
    start = None
    for _ in range(max_tokens):
        token = llama_cpp.llama_sampler_sample(sampler, ctx, -1)
        now = time.perf_counter()
        if llama_cpp.llama_vocab_is_eog(vocab, token):
            break
        start = now if start is None else start
        yield token, 1e3 * (now - start)
        _feed(ctx, [token])
    llama_cpp.llama_sampler_free(sampler)


def _gap(model: Any, ctx: Any, prompt: list[int]) -> float:
    _begin(ctx, prompt)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    first, second = heapq.nlargest(2, llama_cpp.llama_get_logits_ith(ctx, -1)[:n_vocab])
    return float(first - second)


def _begin(ctx: Any, prompt: list[int]) -> None:
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(ctx), True)
    for i in range(0, len(prompt), _N_BATCH):
        _feed(ctx, prompt[i : i + _N_BATCH])


def _feed(ctx: Any, tokens: list[int]) -> None:
    ids = (llama_cpp.llama_token * len(tokens))(*tokens)
    code = llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(ids, len(tokens)))
    if code:
        sys.exit(f"stock llama.cpp's llama_decode failed ({code})")


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
