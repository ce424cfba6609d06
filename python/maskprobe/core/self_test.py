"""Does the core decode right with a llama.cpp that nobody has tested? Some fifty passes with a model, at its load.

Every token that a session commits, and its log-probability, is held to one-row decoding by llama_cpp's own functions in
the same context. So what no layout tells is found where it changes what comes out: parameters of other types, sequence
ids, positions and cells that mean something else. What these passes do not do is not found: long contexts, tokens of
several ubatches, adapters that change later. A crash is a crash.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import BindingError, DecodeError, MaskProbeError
from ..llamacpp.installed import llama_cpp, requirement
from ..llamacpp.model import Model
from ..results import Drafting
from .embeddings import Embeddings, FloatArray
from .session import DraftSettings, Pass, Session

_TOKENS = 10  # of a generation
_REUSED = 4  # of them that the next generation finds in the KV cache; it makes the others again
_BLOCK = 15  # rows at most: five nodes with two masks each
# Of the logits' standard deviation: kernels for one row and for several round apart by less, on any backend, and a cell
# seen by rows that should not see it moves some of ten tokens by more.
_NEAR_TIE = 0.1


@dataclass(frozen=True)
class _Run:
    """What a generation committed, and the log-probabilities that it reported."""

    prompt: list[int]
    tokens: list[int]
    logps: list[float]
    how: str  # it was decoded


def why_no_drafts(session: Session, model: Model, drafting: Drafting, table: Embeddings | None) -> str | None:
    """What is wrong with drafted passes of a session, None if nothing; what it does not draft is not tried.

    Leaves the KV cache empty, and nothing learned.

    Raises:
        BindingError: plain decoding is wrong already.
    """
    reference = _Reference(model)
    try:
        plain, fault = _plain_runs(session, model, reference)
        if fault is not None:
            raise decoded_wrongly(model, fault)
        return None if drafting.shape == "none" else _draft_fault(session, model, table, plain, reference)
    finally:
        session.reset()
        session.forget()


def decoded_wrongly(model: Model, fault: object) -> BindingError:
    """The error that refuses this llama.cpp for what a plain pass showed."""
    return BindingError(
        f"llama-cpp-python {llama_cpp.__version__} does not fit: {model.path.name} is decoded wrongly with it "
        f'({fault}). Mend it with: pip install "{requirement()}"'
    )


def _plain_runs(session: Session, model: Model, reference: _Reference) -> tuple[_Run, str | None]:
    """A plain generation that goes on for a while, and what is wrong with it or with going on from its KV cache."""
    for prompt in _prompts(model.n_vocab):
        try:
            run = _run(session, prompt, None, "plain passes")
            again = _run(session, [*prompt, *run.tokens[:_REUSED]], None, "a reused prompt", n_reused=_REUSED)
            session.reset()
            fault = reference.fault(run) or reference.fault(again)
        except MaskProbeError as error:
            return _Run(prompt, [], [], ""), f"a plain pass failed: {error}"
        if fault is not None or len(run.tokens) == _TOKENS:
            break
    return run, fault


def _prompts(n_vocab: int) -> list[list[int]]:
    """Token ids that repeat, as models then go on; several, for a model that ends its answer at once."""
    return [[n_vocab // first, n_vocab // 2, n_vocab // 5] * 3 for first in (3, 7, 11)]


def _draft_fault(
    session: Session, model: Model, table: Embeddings | None, plain: _Run, reference: _Reference
) -> str | None:
    """What is wrong with passes that draft right tokens, wrong ones, and both in one tree or chain."""
    right = [*plain.prompt, *plain.tokens]
    wrong = [(token + (i % 3 == 0)) % model.n_vocab for i, token in enumerate(right)]
    known = _known(model)
    try:
        with closing(_Greedy()) as chain:
            session.learn_text(np.array(right, np.int32))
            runs = [_run(session, plain.prompt, known, "drafts that are right", chain=chain.handle)]
            if session.shape().is_chain:
                session.forget()  # what is right: a chain would follow that alone
            session.learn_text(np.array(wrong, np.int32))
            runs.append(_run(session, plain.prompt, known, "drafts that are right and wrong"))
            guessed = known if table is None else _guessed(session, model, table)
            if table is not None:
                runs.append(_run(session, plain.prompt, guessed, "drafts that are guessed"))
            reused = right[: len(plain.prompt) + _REUSED]
            runs.append(_run(session, reused, guessed, "drafts after a reused prompt", n_reused=_REUSED))
        session.reset()
        return next((fault for run in runs if (fault := reference.fault(run)) is not None), None)
    except MaskProbeError as error:
        return f"a drafted pass failed: {error}"


def _known(model: Model) -> DraftSettings:
    """Drafts that follow the texts that were taught, as many as there is room for."""
    block = min(_BLOCK, model.n_ubatch())
    return DraftSettings(
        tree="mixed",
        masks=np.zeros((0, model.n_embd), np.float32),
        update=0.0,
        block=block,
        cost=np.ones(block, np.float32),
        sources=("history",),
    )


def _guessed(session: Session, model: Model, table: Embeddings) -> DraftSettings:
    """Drafts that masks guess: mostly wrong ones, in branches where the memory takes them."""
    known = _known(model)
    masks = table.rows([model.n_vocab // 2, model.n_vocab // 4])[: known.block - 1]
    if session.shape().is_chain:
        return replace(known, masks=masks, sources=())
    return replace(known, tree="static", masks=masks, widths=(2, 2)[: len(masks)])


class _Greedy:
    """llama.cpp's own greedy sampler: what it does to an array of tokens shows whether that is laid out alike."""

    def __init__(self) -> None:
        self.handle: Any = llama_cpp.llama_sampler_init_greedy()

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self.handle)


def _run(
    session: Session,
    prompt: list[int],
    settings: DraftSettings | None,
    how: str,
    *,
    chain: Any = None,
    n_reused: int = 0,
) -> _Run:
    run, n_tokens = _Run(prompt, [], [], how), _TOKENS - n_reused
    session.begin(prompt, chain, settings, n_tokens, reuse=n_reused > 0)
    session.report_logprobs(0)
    try:
        out, decode = Pass(), session.prefill
        while len(run.tokens) < n_tokens and not out.end:
            decode(out)
            run.logps.extend(out.logprobs(i)[0] for i in range(len(out.tokens())))
            run.tokens.extend(out.tokens())
            decode = session.step if run.tokens else session.prefill
    finally:
        session.report_logprobs(None)
    return run


class _Reference:
    """One-row decoding in the model's context, declared by llama_cpp alone. Overwrites the KV cache."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._logits: dict[tuple[int, ...], FloatArray] = {}  # after these tokens

    def fault(self, run: _Run) -> str | None:
        """Where tokens of a run are not the model's own choice or a near tie with it, None if all are."""
        for i, (token, logp) in enumerate(zip(run.tokens, run.logps, strict=True)):
            logits = self._after(run, i)
            spread = float(logits[np.isfinite(logits)].std())
            best = float(logits.max())
            own = float(logits[token] - best - np.log(np.exp(logits - best).sum()))
            off = max(best - float(logits[token]), abs(own - logp)) / max(spread, 1e-9)
            if not off <= _NEAR_TIE:
                return f"with {run.how}, token {i + 1} is off by {off:.2g} of the logits' standard deviation"
        return None

    def _after(self, run: _Run, n: int) -> FloatArray:
        """The logits after the prompt and n tokens, [n_vocab]."""
        known = (*run.prompt, *run.tokens[:n])
        if known not in self._logits:
            self._decode(run.prompt, run.tokens)
        return self._logits[known]

    def _decode(self, prompt: list[int], tokens: list[int]) -> None:
        memory = llama_cpp.llama_get_memory(self._model.ctx)
        llama_cpp.llama_memory_clear(memory, False)
        n_batch = self._model.options.n_batch
        for at in range(0, len(prompt), n_batch):
            logits = self._feed(prompt[at : at + n_batch])
        self._logits[tuple(prompt)] = logits
        for i, token in enumerate(tokens[:-1]):
            self._logits[(*prompt, *tokens[: i + 1])] = self._feed([token])
        llama_cpp.llama_memory_clear(memory, False)

    def _feed(self, tokens: Sequence[int]) -> FloatArray:
        ctx, n_vocab = self._model.ctx, self._model.n_vocab
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        if (code := llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(ids, len(tokens)))) != 0:
            raise DecodeError(f"llama_decode gives {code} for llama_cpp's own batch of {len(tokens)} tokens")
        pointer = ctypes.cast(llama_cpp.llama_get_logits_ith(ctx, -1), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, (n_vocab,)).astype(np.float64)
