"""A process that is forked after the model was loaded gets one clear error; the parent goes on."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from maskprobe import MaskProbeLlama, Speculation

PROMPT = "the tree of the sea and the tree"


def in_fork(work: Callable[[], object]) -> str:
    """What a forked process makes of some work: the result or the error, as text."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads
        child = os.fork()
    if child == 0:  # no way out of here but _exit: the tests go on in the parent
        signal.alarm(60)  # a child that waits for ever is a failure
        try:
            text = repr(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


@pytest.fixture
def tiny(tiny_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, speculation=Speculation(tree=(6,))) as llm:
        yield llm


def answer(llm: MaskProbeLlama) -> list[int]:
    return llm.generate(PROMPT, max_tokens=16, temperature=0.0, cache_prompt=False).tokens


def test_a_fork_cannot_use_the_model(tiny: MaskProbeLlama, tmp_path: Path) -> None:
    before = answer(tiny)
    stream = tiny.stream(PROMPT, max_tokens=16, temperature=0.0, cache_prompt=False)
    first = next(stream)
    uses: list[Callable[[], object]] = [
        lambda: answer(tiny),
        lambda: tiny.create_completion(PROMPT),
        lambda: tiny.tokenize(PROMPT),
        lambda: tiny.save_state(tmp_path / "state"),
        tiny.reset,
        lambda: list(stream),
    ]
    error = f"ForkError: this model was loaded in process {os.getpid()}; load it anew in each forked process"
    for use in uses:
        assert in_fork(use) == error
    assert [*first.tokens, *(token for chunk in stream for token in chunk.tokens)] == before
    assert answer(tiny) == before


def test_a_fork_leaves_the_model_alone_when_it_ends(tiny: MaskProbeLlama) -> None:
    before = answer(tiny)
    assert in_fork(tiny.close) == "None"
    assert in_fork(tiny._lifetime.__del__) == "None"
    assert answer(tiny) == before


def test_a_fork_does_not_wait_for_threads_that_it_lacks(tiny_path: Callable[[str], Path]) -> None:
    """Here one that makes a pass of a shared object while the fork gives up its own stream."""
    within, go_on = threading.Event(), threading.Event()

    def processor(ids: Any, logits: Any) -> Any:
        within.set()
        assert go_on.wait(60)
        return logits

    with (
        MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, n_parallel=2, seed=1) as llm,
        ThreadPoolExecutor(1) as threads,
    ):
        stream = llm.stream(PROMPT, max_tokens=16)
        next(stream)
        other = threads.submit(llm.generate, PROMPT, max_tokens=2, logits_processor=processor)
        assert within.wait(60)
        try:
            assert in_fork(stream.close) == "None"
        finally:
            go_on.set()
        assert len(other.result(60).tokens) == 2
        stream.close()


def test_a_fork_may_load_its_own(tiny: MaskProbeLlama) -> None:
    def load() -> list[int]:
        with MaskProbeLlama(tiny.model_path, n_ctx=512, n_threads=1, speculation=Speculation(tree=(6,))) as own:
            return answer(own)

    assert in_fork(load) == repr(answer(tiny))
