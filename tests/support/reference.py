"""Plain decoding by llama_cpp's low-level interface alone: what the package's output is held to.

The whole prompt goes in pieces of n_batch, then one token at a time, flash attention on. Nothing here comes from
maskprobe.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

# Where the layers lie, of the package's models too (see conftest.py), and how far logits of one row and of several may
# differ there beyond what they do on a CPU.
GPU_LAYERS = int(os.environ.get("MASKPROBE_TEST_GPU_LAYERS", "0"))
DEVICE_NOISE = float(os.environ.get("MASKPROBE_TEST_NOISE", "0"))


@dataclass(frozen=True)
class Decoded:
    """tokens without the one that ended the text; gaps: the two best logits' distance at every choice made."""

    tokens: list[int]
    gaps: list[float]
    ended: bool


def quiet_llama_cpp() -> None:
    llama_cpp._logger.set_verbose(False)


class PlainDecoder:
    def __init__(
        self, path: Path, *, n_ctx: int, n_batch: int = 512, n_gpu_layers: int = GPU_LAYERS, **context: Any
    ) -> None:
        """context: further fields of llama_context_params."""
        quiet_llama_cpp()
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = n_gpu_layers
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        params = llama_cpp.llama_context_default_params()
        params.op_offload = n_gpu_layers != 0
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, min(n_batch, 512)
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.swa_full = True
        for name, value in context.items():
            setattr(params, name, value)
        self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.n_ctx, self.n_batch = llama_cpp.llama_n_ctx(self.ctx), n_batch

    def close(self) -> None:
        llama_cpp.llama_free(self.ctx)
        llama_cpp.llama_model_free(self.model)

    def decode(self, prompt: Sequence[int], max_tokens: int, **sampling: Any) -> Decoded:
        """Decodes greedily, or with the parameters of `sampling`."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)
        sampler = _chain(self.n_vocab, **sampling)
        tokens: list[int] = []
        gaps: list[float] = []
        ended = False
        for i in range(0, len(prompt), self.n_batch):
            self._feed(prompt[i : i + self.n_batch])
        while True:
            gaps.append(self._gap())
            token = llama_cpp.llama_sampler_sample(sampler, self.ctx, -1)
            ended = llama_cpp.llama_vocab_is_eog(self.vocab, token)
            if ended:
                break
            tokens.append(token)
            if len(tokens) == max_tokens or len(prompt) + len(tokens) == self.n_ctx:
                break
            self._feed([token])
        llama_cpp.llama_sampler_free(sampler)
        return Decoded(tokens, gaps, ended)

    def could_draw(
        self, prompt: Sequence[int], tokens: Sequence[int], token: int, noise: float, **sampling: Any
    ) -> bool:
        """Whether the draw after these tokens, which are this decoder's own, may give a token at noisy logits."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)
        sampler = _chain(self.n_vocab, **sampling)
        for i in range(0, len(prompt), self.n_batch):
            self._feed(prompt[i : i + self.n_batch])
        for expected in tokens:
            assert llama_cpp.llama_sampler_sample(sampler, self.ctx, -1) == expected
            self._feed([expected])
        rng = np.random.default_rng(0)
        logits = self._logits()
        draws = {_draw(sampler, logits + rng.normal(0, noise, len(logits))) for _ in range(100)}
        llama_cpp.llama_sampler_free(sampler)
        return token in draws

    def _feed(self, tokens: Sequence[int]) -> None:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        assert llama_cpp.llama_decode(self.ctx, llama_cpp.llama_batch_get_one(ids, len(tokens))) == 0

    def _gap(self) -> float:
        second, first = np.partition(self._logits(), -2)[-2:]
        return float(first - second)

    def _logits(self) -> Any:
        pointer = llama_cpp.llama_get_logits_ith(self.ctx, -1)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.n_vocab,)).copy()


def _draw(sampler: Any, logits: Any) -> int:
    """What a copy of the sampler takes of these logits."""
    copy = llama_cpp.llama_sampler_clone(sampler)
    rows = [llama_cpp.llama_token_data(token, float(logit), 0.0) for token, logit in enumerate(logits)]
    every = llama_cpp.llama_token_data_array((llama_cpp.llama_token_data * len(rows))(*rows), len(rows), -1, False)
    llama_cpp.llama_sampler_apply(copy, ctypes.byref(every))
    llama_cpp.llama_sampler_free(copy)
    return int(every.data[every.selected].id)


def _chain(n_vocab: int, **sampling: Any) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in _samplers(n_vocab, **sampling):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain


def _samplers(
    n_vocab: int,
    temperature: float = 0.0,
    top_k: int = 40,
    top_p: float = 0.95,
    min_p: float = 0.05,
    typical_p: float = 1.0,
    repeat_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    penalty_last_n: int = 64,
    seed: int = 0,
) -> Iterator[Any]:
    yield llama_cpp.llama_sampler_init_penalties(
        n_vocab, penalty_last_n, repeat_penalty, frequency_penalty, presence_penalty
    )
    if temperature == 0.0:
        yield llama_cpp.llama_sampler_init_greedy()
        return
    yield llama_cpp.llama_sampler_init_top_k(top_k)
    yield llama_cpp.llama_sampler_init_typical(typical_p, 1)
    yield llama_cpp.llama_sampler_init_top_p(top_p, 1)
    yield llama_cpp.llama_sampler_init_min_p(min_p, 1)
    yield llama_cpp.llama_sampler_init_temp(temperature)
    yield llama_cpp.llama_sampler_init_dist(seed)


def first_difference(tokens: Sequence[int], reference: Decoded) -> int | None:
    """Index of the first choice that differs from the reference's, None if the outputs are equal."""
    if list(tokens) == reference.tokens:
        return None
    pairs = enumerate(zip(tokens, reference.tokens, strict=False))
    return next((i for i, (ours, theirs) in pairs if ours != theirs), min(len(tokens), len(reference.tokens)))


def assert_near_tie(tokens: Sequence[int], reference: Decoded, noise: float) -> None:
    """The outputs are equal, or part where the reference's best two logits lie closer than the kernels' noise."""
    at = first_difference(tokens, reference)
    if at is not None:
        print(f"first difference at token {at}, reference's top-2 gap {reference.gaps[at]:.4g}")
        assert reference.gaps[at] < noise + DEVICE_NOISE


def assert_draws_near_tie(
    tokens: Sequence[int], decoder: PlainDecoder, prompt: Sequence[int], noise: float, **sampling: Any
) -> None:
    """The draws are plain decoding's, or part where noise on the logits makes plain decoding draw the same."""
    expected = decoder.decode(prompt, len(tokens), **sampling)
    at = first_difference(tokens, expected)
    if at is not None:
        noise += DEVICE_NOISE
        assert noise > 0.0
        assert decoder.could_draw(prompt, expected.tokens[:at], tokens[at], noise, **sampling)
