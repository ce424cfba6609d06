"""What a generation is asked for: the keyword arguments of generate and stream, and the same checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..checking import checked_integer
from ..speculation import Speculation
from .sampling import Chain, SamplingOptions

MAX_TOP_LOGPROBS = 100
_MOST_TOKENS = 2**31 - 1

BeforePass = Callable[[], None]


class Options(SamplingOptions, total=False):
    """Keyword arguments of generate and stream; see :meth:`maskprobe.MaskProbeLlama.stream`."""

    max_tokens: int | None
    stop: str | Sequence[str] | None
    special: bool | Collection[int]
    logprobs: int | None
    speculate: bool | Speculation | None
    cache_prompt: bool
    before_pass: BeforePass | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """What a generation is asked for, checked. See :meth:`maskprobe.MaskProbeLlama.stream`."""

    prompt: list[int]
    chain: Chain
    seed: int
    speculation: Speculation | None  # None for plain decoding
    max_tokens: int
    stop: list[str]
    special: Collection[int]  # control tokens that have text
    n_top: int | None  # log-probabilities per token
    cache_prompt: bool
    before_pass: BeforePass


def checked_max_tokens(max_tokens: int | None) -> int:
    """At most so many tokens; None = as many as a context can hold."""
    return _MOST_TOKENS if max_tokens is None else checked_integer("max_tokens", max_tokens, 1, _MOST_TOKENS)


def checked_n_top(logprobs: int | None) -> int | None:
    """How many log-probabilities are wanted per token, None = none."""
    return None if logprobs is None else checked_integer("logprobs", logprobs, 0, MAX_TOP_LOGPROBS)


def checked_stops(stop: object) -> list[str]:
    """The strings that end a generation; empty ones are none."""
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) for s in stops):
        raise ValueError(f"stop must hold strings, got {stop!r}")
    return [s for s in stops if s]


def checked_special(special: object, n_vocab: int) -> Collection[int]:
    """The control tokens that have text in the answer; True = all."""
    if isinstance(special, bool):
        return range(n_vocab) if special else ()
    if not isinstance(special, Collection) or not all(isinstance(token, int) for token in special):
        raise TypeError(f"special must be a bool or token ids, got {special!r:.80}")
    return frozenset(special)


def checked_before_pass(before_pass: object) -> BeforePass:
    """What is called before every pass; None = nothing."""
    if before_pass is None:
        return _nothing
    if not callable(before_pass):
        raise TypeError(f"before_pass must be callable, got {before_pass!r}")
    return before_pass


def _nothing() -> None:
    pass
