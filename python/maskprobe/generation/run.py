"""One generation: its prompt, its passes, and the chunks and figures that come of them.

Knows the session and how text and counts are made of what it commits; leaves checking what was asked for, and who may
ask, to MaskProbeLlama.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ..core.binding import ffi
from ..drafting import costs
from ..errors import SamplingError
from ..results import Chunk, Counter, FinishReason, TokenLogprobs
from ..speculation import Speculation
from .engine import Engine
from .sampling import Chain
from .text import TextStream

_LEAST_LOGPROB = -9999.0  # as OpenAI's API says it


@dataclass(frozen=True, eq=False)
class Request:
    """What a generation is asked for, checked. See :meth:`maskprobe.MaskProbeLlama.stream`."""

    prompt: list[int]
    chain: Chain
    seed: int
    speculation: Speculation | None  # None for plain decoding
    max_tokens: int
    stop: list[str]
    n_top: int | None  # log-probabilities per token
    cache_prompt: bool


def run(engine: Engine, request: Request) -> Generator[Chunk, None, None]:
    """The prompt loop. Time that the consumer spends between two chunks is not counted.

    Raises:
        SamplingError: the grammar or the biases leave no token.
        DecodeError: llama.cpp failed.
    """
    try:
        yield from _run(engine, request)
    except SamplingError as error:
        raise SamplingError(f"no token is left to choose from: {request.chain.why_nothing()}") from error


def _run(engine: Engine, request: Request) -> Generator[Chunk, None, None]:
    prompt, speculation, n_top = request.prompt, request.speculation, request.n_top
    with closing(request.chain) as chain:
        counter = Counter()
        clock = time.perf_counter()
        engine.report_logprobs(n_top)
        begun = engine.begin(
            prompt,
            chain.handle,
            speculation,
            request.max_tokens,
            seed=request.seed,
            cache_prompt=request.cache_prompt,
        )
        counter.prompt_n, counter.cache_n = len(prompt) - begun.n_reused, begun.n_reused
        counter.probe = begun.probe
        c_pass = ffi.new("mp_pass *")
        while c_pass.n_tokens == 0:
            engine.prefill(c_pass)
        now = time.perf_counter()
        counter.prompt_ms = 1e3 * (now - clock)
        clock = now

        text = TextStream(request.stop)
        n_left = min(request.max_tokens, engine.model.n_ctx() - len(prompt))
        reason: FinishReason | None = None
        while reason is None:
            n_left -= c_pass.n_tokens
            n_accepted = c_pass.n_accepted
            for i, token in enumerate(ffi.unpack(c_pass.tokens, c_pass.n_tokens)):
                counter.predicted_n += 1
                if c_pass.end and i == c_pass.n_tokens - 1:
                    reason = "stop"
                    break
                piece = text.push(engine.model.vocab.piece(token))
                counter.predicted_ms += 1e3 * (time.perf_counter() - clock)
                if text.stopped and i < n_accepted:
                    counter.accepted[-1] = i  # the pass's last token is its own choice, what follows is not used
                drafted = i < n_accepted and not text.stopped
                yield Chunk(piece, [token], drafted, logprobs=None if n_top is None else _logprobs(c_pass, i))
                clock = time.perf_counter()
                if text.stopped:
                    reason = "stop"
                    break
            if reason is None and n_left <= 0:
                reason = "length"
            if reason is None:
                engine.step(c_pass)
                counter.accepted.append(c_pass.n_accepted)
                counter.rows.append(c_pass.n_rows)
        totals = engine.totals()
        if speculation is not None and speculation.probe_is("auto"):
            engine.probe_choice().add(begun.probe, totals.n_probed, totals.probe_logp)
        if begun.curve is not None:
            counter.choice = costs.describe(begun.curve, c_pass.price)
        rest = text.finish()
        counter.predicted_ms += 1e3 * (time.perf_counter() - clock)
        yield Chunk(rest, finish_reason=reason, stats=counter.stats(totals))


def _logprobs(c_pass: Any, i: int) -> TokenLogprobs:
    """Of the pass's token i."""
    first, last = i * c_pass.n_top, (i + 1) * c_pass.n_top
    top = [(c_pass.top[j], _finite(c_pass.top_logp[j])) for j in range(first, last)]
    return TokenLogprobs(_finite(c_pass.logp[i]), top)


def _finite(logprob: float) -> float:
    """JSON knows neither infinity nor what is no number."""
    return logprob if logprob > _LEAST_LOGPROB else _LEAST_LOGPROB
