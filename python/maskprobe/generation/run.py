"""One generation: its prompt, its passes, and the chunks and figures that come of them.

Knows the session and how text and counts are made of what it commits; leaves checking what was asked for, and who may
ask, to MaskProbeLlama.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from ..core.session import Pass
from ..drafting import costs
from ..drafting.knowledge import Resolved
from ..errors import SamplingError
from ..results import Chunk, FinishReason, TokenLogprobs
from .engine import Engine
from .request import Request
from .seats import Seat
from .tally import Tally
from .text import TextStream

_LEAST_LOGPROB = -9999.0  # as OpenAI's API says it


def run(engine: Engine, seat: Seat, request: Request) -> Generator[Chunk, None, None]:
    """The chunks of a generation in a seat. Time that the consumer spends between two of them is not counted.

    Raises:
        SamplingError: the grammar or the biases leave no token.
        DecodeError: llama.cpp failed.
        BaseException: what a logits processor or a stopping criterion has raised.
    """
    try:
        with closing(request.chain):
            yield from _Run(engine, seat, request).chunks()
    except SamplingError as error:
        callbacks = request.chain.callbacks
        if callbacks is not None and callbacks.error is not None:
            raise callbacks.error from None
        raise SamplingError(f"no token is left to choose from: {request.chain.why_nothing()}") from error


class _Run:
    """A generation that runs: prompt, then pass by pass until something ends it."""

    def __init__(self, engine: Engine, seat: Seat, request: Request) -> None:
        self._engine = engine
        self._seat = seat
        self._session = seat.session
        self._request = request
        self._pass = Pass()  # the last one
        self._text = TextStream(request.stop)
        self._tally = Tally()
        self._watch = _Stopwatch()

    def chunks(self) -> Generator[Chunk, None, None]:
        """One chunk per committed token, and a last one with the figures."""
        try:
            yield from self._chunks()
        finally:
            self._seat.end()

    def _chunks(self) -> Generator[Chunk, None, None]:
        with self._seat.paused():
            resolved = self._begin()
        tokens = self._prefill()
        n_left = min(self._request.max_tokens, self._engine.model.n_ctx() - len(self._request.prompt))
        while True:
            reason = yield from self._show(tokens)
            n_left -= len(tokens)
            if reason is None and n_left <= 0:
                reason = "length"
            if reason is not None:
                break
            tokens = self._step()
        yield self._end(reason, resolved)

    def _begin(self) -> Resolved | None:
        """Looks up what to draft with and hands the prompt to the session; None = plain decoding."""
        request, tally, resolved = self._request, self._tally, None
        self._session.report_logprobs(request.n_top)
        if request.speculation is not None:
            resolved = self._engine.knowledge.resolve(request.speculation, request.prompt, request.seed)
            tally.probe = resolved.probe
        settings = None if resolved is None else resolved.settings
        tally.cache_n = self._session.begin(
            request.prompt,
            request.chain.handle,
            settings,
            request.max_tokens,
            reuse=request.cache_prompt,
            guide=None if request.chain.grammar is None else request.chain.grammar.guide,
        )
        tally.prompt_n = len(request.prompt) - tally.cache_n
        self._seat.tokens, self._seat.n_prompt = list(request.prompt), len(request.prompt)
        return resolved

    def _prefill(self) -> list[int]:
        """Decodes the prompt, which gives the first token."""
        while not (tokens := self._pass.tokens()):
            self._request.before_pass()
            self._seat.prefill(self._pass)
        self._tally.prompt_ms = self._watch.lap_ms()
        return tokens

    def _step(self) -> list[int]:
        """Passes until one commits tokens: each does, unless others need the room."""
        while True:
            self._request.before_pass()
            self._seat.step(self._pass)
            if self._pass.n_rows:
                self._tally.add(self._pass)
            if tokens := self._pass.tokens():
                return tokens

    def _show(self, tokens: list[int]) -> Generator[Chunk, None, FinishReason | None]:
        """The chunks of a pass's tokens. Returns why the generation ends with them, None if it does not."""
        tally, text, n_accepted = self._tally, self._text, self._pass.n_accepted
        self._seat.tokens += tokens
        for i, token in enumerate(tokens):
            tally.predicted_n += 1
            if (self._pass.end and i == len(tokens) - 1) or self._is_ended_before(i):
                return "stop"
            piece = text.push(self._engine.model.vocab.piece(token, token in self._request.special))
            drafted = i < n_accepted
            if text.stopped_by and drafted:
                # The token is the pass's last then, its own choice; what was accepted after it is not used.
                tally.accepted[-1], drafted = i, False
            tally.predicted_ms += self._watch.lap_ms()
            logprobs = None if self._request.n_top is None else _logprobs(self._pass, i)
            yield Chunk(piece, [token], drafted, logprobs=logprobs)
            self._watch.lap_ms()
            if text.stopped_by:
                return "stop"
        return None

    def _is_ended_before(self, i: int) -> bool:
        """Whether a stopping criterion has ended the text before the i-th token of a pass."""
        callbacks = self._request.chain.callbacks
        if callbacks is None or not callbacks.end_before(self._tally.predicted_n - 1):
            return False
        if i < self._pass.n_accepted:
            self._tally.accepted[-1] = i
        return True

    def _end(self, reason: FinishReason, resolved: Resolved | None) -> Chunk:
        """The last chunk: the text still held back, and the figures."""
        with self._seat.paused():
            totals = self._session.totals()
        tally = self._tally
        if resolved is not None and self._request.speculation is not None:
            choice = self._engine.knowledge.probe_choice()
            if choice is not None and self._request.speculation.probe_is("auto"):
                choice.add(resolved.probe, totals.n_probed, totals.probe_logp)
            if resolved.curve is not None:
                tally.choice = costs.describe(resolved.curve, self._pass.price)
                if resolved.settings.refine:
                    change = resolved.settings.change
                    tally.plain_pass_ms = costs.plain_pass(resolved.curve, change, tally.rows, totals.decode_ms)
        rest = self._text.finish()
        tally.stopped_by = self._text.stopped_by
        tally.predicted_ms += self._watch.lap_ms()
        return Chunk(rest, finish_reason=reason, stats=tally.stats(totals))


class _Stopwatch:
    """Tells the milliseconds from one look to the next."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap_ms(self) -> float:
        now = time.perf_counter()
        last, self._last = self._last, now
        return 1e3 * (now - last)


def _logprobs(passed: Pass, i: int) -> TokenLogprobs:
    """The log-probabilities of the i-th token that a pass committed."""
    logprob, top = passed.logprobs(i)
    return TokenLogprobs(_finite(logprob), [(token, _finite(other)) for token, other in top])


def _finite(logprob: float) -> float:
    """JSON knows neither infinity nor what is no number."""
    return logprob if logprob > _LEAST_LOGPROB else _LEAST_LOGPROB
