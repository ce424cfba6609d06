"""Ctrl-C returns soon, wherever it comes, and leaves the object usable."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maskprobe import Chunk, MaskProbeLlama, Speculation


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    """As at a terminal, also where whoever started the tests ignores Ctrl-C (a shell's background job does)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_pieces(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    """Decodes prompts 64 tokens at a time, so that a prompt takes many calls."""
    with MaskProbeLlama(
        model_path("Q4_0"), n_ctx=2048, n_batch=64, n_threads=1, speculation=Speculation(budget=8)
    ) as llm:
        yield llm


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, _thread.interrupt_main)
    timer.start()
    try:
        yield
    finally:  # a test that fails early must not leave a Ctrl-C to the next one
        timer.cancel()
        timer.join()


def test_ctrl_c_while_the_prompt_is_decoded(small_pieces: MaskProbeLlama, prompts: dict[str, str]) -> None:
    expected = small_pieces.generate(prompts["days"], max_tokens=8, temperature=0.0).tokens
    with pytest.raises(KeyboardInterrupt), interrupt_after(0.15):
        small_pieces.generate([9, 10, 11, 12] * 500, max_tokens=2)
    again = small_pieces.generate(prompts["days"], max_tokens=8, temperature=0.0, cache_prompt=False)
    assert again.tokens == expected


def test_ctrl_c_while_tokens_come(small_pieces: MaskProbeLlama, prompts: dict[str, str]) -> None:
    expected = small_pieces.generate(prompts["days"], max_tokens=8, temperature=0.0).tokens
    seen: list[Chunk] = []
    with pytest.raises(KeyboardInterrupt), interrupt_after(0.4):
        seen.extend(small_pieces.stream(prompts["python"], max_tokens=1500, temperature=1.5, seed=1))
    assert len(seen) < 1500
    again = small_pieces.generate(prompts["days"], max_tokens=8, temperature=0.0, cache_prompt=False)
    assert again.tokens == expected


def test_a_prompt_that_was_interrupted_is_taken_up_where_it_stopped(
    small_pieces: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch, prompts: dict[str, str]
) -> None:
    ids = small_pieces.tokenize(prompts["bakery"] * 3)
    expected = small_pieces.generate(ids, max_tokens=12, temperature=0.0, cache_prompt=False).tokens
    small_pieces.reset()
    prefill, n_calls = small_pieces.engine.session.prefill, 0

    def interrupted(passed: object) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 3:
            raise KeyboardInterrupt
        prefill(passed)

    monkeypatch.setattr(small_pieces.engine.session, "prefill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_pieces.generate(ids, max_tokens=12, temperature=0.0)
    again = small_pieces.generate(ids, max_tokens=12, temperature=0.0)
    assert (again.stats.cache_n, again.stats.prompt_n) == (128, len(ids) - 128)  # two pieces of 64 were done
    assert again.tokens == expected


def test_an_error_in_the_consumer_leaves_the_model_usable(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    def consume() -> None:
        for chunk in llm.stream(prompts["days"], max_tokens=20):
            raise ZeroDivisionError(chunk.text)

    with pytest.raises(ZeroDivisionError):
        consume()
    assert llm.generate(prompts["days"], max_tokens=3).tokens
