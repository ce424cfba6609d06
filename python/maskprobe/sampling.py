"""Sampler chains: the parameters and the llama.cpp chain they stand for.

The order of the chain is llama-cpp-python's, so equal parameters and seeds give equal text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .binding import llama_cpp
from .speculation import checked_integer, checked_number


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Validated sampling parameters; ``temperature=0`` is greedy. Names and defaults as in llama-cpp-python.

    Raises:
        ValueError, TypeError: a value is out of range; the message names it.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int = llama_cpp.LLAMA_DEFAULT_SEED

    def __post_init__(self) -> None:
        checked_number("temperature", self.temperature, 0.0)
        checked_integer("top_k", self.top_k, -(2**31), 2**31 - 1)
        for name in ("top_p", "min_p", "typical_p"):
            checked_number(name, getattr(self, name), 0.0, 1.0)
        checked_number("repeat_penalty", self.repeat_penalty, 0.0)
        if self.repeat_penalty == 0.0:
            raise ValueError("repeat_penalty must be above 0 (1.0 turns it off), got 0.0")
        for name in ("frequency_penalty", "presence_penalty"):
            checked_number(name, getattr(self, name), -(2.0**31), 2.0**31)
        checked_integer("penalty_last_n", self.penalty_last_n, 0, 2**31 - 1)
        checked_integer("seed", self.seed, 0, 2**32 - 1)

    @contextmanager
    def chain(self, n_vocab: int) -> Iterator[Any]:
        """A fresh llama_sampler chain, freed at exit."""
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        try:
            for sampler in self._samplers(n_vocab):
                llama_cpp.llama_sampler_chain_add(chain, sampler)
            yield chain
        finally:
            llama_cpp.llama_sampler_free(chain)

    def _samplers(self, n_vocab: int) -> Iterator[Any]:
        penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
        if penalties != (1.0, 0.0, 0.0) and self.penalty_last_n > 0:
            yield llama_cpp.llama_sampler_init_penalties(n_vocab, self.penalty_last_n, *penalties)
        if self.temperature == 0.0:
            yield llama_cpp.llama_sampler_init_greedy()
            return
        yield llama_cpp.llama_sampler_init_top_k(self.top_k)
        yield llama_cpp.llama_sampler_init_typical(self.typical_p, 1)
        yield llama_cpp.llama_sampler_init_top_p(self.top_p, 1)
        yield llama_cpp.llama_sampler_init_min_p(self.min_p, 1)
        yield llama_cpp.llama_sampler_init_temp(self.temperature)
        yield llama_cpp.llama_sampler_init_dist(self.seed)
