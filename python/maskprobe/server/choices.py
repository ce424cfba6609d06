"""Several choices of one answer: n for each prompt, made one after the other with seeds of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .worker import BeforePass, Part

_SEEDS = 2**32 - 1  # the next one is llama.cpp's word for a random one


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The choices of a request. Their order is OpenAI's: those of the first prompt, those of the second, ...

    Args:
        method: of the model; it takes ``stream`` and ``before_pass``.
        prompts: the arguments in which the prompts differ.
        n: choices for each of them.
        seed: of the first; the others' follow it. None = the model's own for the first, random ones for the others.
        stream: whether each comes in parts.
        checks: whether a stream's call checks the request and leaves the model alone; the first is then made at once.
    """

    method: Callable[..., Any]
    prompts: Sequence[Mapping[str, Any]]
    n: int
    seed: int | None
    stream: bool
    checks: bool

    def begin(self, before_pass: BeforePass) -> Iterable[Part]:
        """The parts of all choices; whole ones if there is no stream."""
        return self._parts(self._call(0, before_pass) if self.stream and self.checks else None, before_pass)

    def _parts(self, first: Iterable[Part] | None, before_pass: BeforePass) -> Iterator[Part]:
        envelope: Part = {}
        for index in range(self.n * len(self.prompts)):
            parts = first if index == 0 and first is not None else self._call(index, before_pass)
            for part in parts:
                envelope = envelope or {key: part[key] for key in ("id", "created") if key in part}
                yield self._labelled(part, index) | envelope

    def _call(self, index: int, before_pass: BeforePass) -> Iterable[Part]:
        prompt, i = divmod(index, self.n)
        arguments: dict[str, Any] = dict(self.prompts[prompt])
        if i == 0:
            arguments["seed"] = self.seed
        else:
            arguments["seed"] = random.randrange(_SEEDS) if self.seed is None else (self.seed + i) % _SEEDS
        answer = self.method(**arguments, stream=self.stream, before_pass=before_pass)
        return answer if self.stream else [answer]

    def _labelled(self, part: Part, index: int) -> Part:
        for choice in part["choices"]:
            choice["index"] = index
        if "usage" in part:
            cached = part.get("timings", {}).get("cache_n", 0)
            part["usage"] = _usage(part["usage"], cached, counts_prompt=index % self.n == 0)
        return part


def _usage(usage: Mapping[str, int], cached: int, *, counts_prompt: bool) -> Part:
    """The usage of one choice; a prompt counts once, and is cached for all choices but the first."""
    prompt = usage["prompt_tokens"] if counts_prompt else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": prompt + usage["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached if counts_prompt else 0},
    }


def total_usage(usages: Sequence[Part]) -> Part:
    """The usage of several choices together."""
    total = {key: sum(usage[key] for usage in usages) for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    return total | {"prompt_tokens_details": {"cached_tokens": cached}}
