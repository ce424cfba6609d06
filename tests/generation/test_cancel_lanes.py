"""Ctrl-C among several generations: it ends the main thread's, and the others go on as if nothing had been."""

from __future__ import annotations

import _thread
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from test_cancel import interrupt_after
from tiny_tokenizer import EOS

from maskprobe import Generation, MaskProbeLlama
from maskprobe.core.pool import Pool
from maskprobe.core.session import Pass

DEADLINE = 60.0
TEXT = "the tree of the sea and the tree"
OPTIONS: dict[str, Any] = {"max_tokens": 120, "temperature": 0.8, "logit_bias": {EOS: -100.0}}


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def llm(tiny_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=2048, n_threads=1, n_parallel=3) as llm:
        yield llm


def test_ctrl_c_within_a_shared_pass(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the rows of both are decoded."""
    expected = llm.generate(TEXT, seed=1, **OPTIONS).tokens
    main, makers = threading.get_ident(), list[tuple[int, int]]()
    step, n_passes, n_draws = Pool.step, 0, 0
    others: list[Future[Generation]] = []

    def noted(pool: Pool, lanes: Sequence[int], outs: Sequence[Pass]) -> list[BaseException | None]:
        makers.append((threading.get_ident(), len(lanes)))
        return step(pool, lanes, outs)

    def interrupts(_: npt.NDArray[np.intc], logits: npt.NDArray[np.single]) -> npt.NDArray[np.single]:
        nonlocal n_draws
        n_draws += 1
        if n_draws == 20:
            _thread.interrupt_main()
        return logits

    monkeypatch.setattr(Pool, "step", noted)
    with ThreadPoolExecutor(1) as threads:

        def begin_another() -> None:
            nonlocal n_passes
            n_passes += 1
            if n_passes == 3:
                others.append(threads.submit(llm.generate, TEXT, seed=1, logits_processor=interrupts, **OPTIONS))

        with pytest.raises(KeyboardInterrupt):
            llm.generate(TEXT, before_pass=begin_another, **OPTIONS | {"max_tokens": 1900})
        assert others[0].result(DEADLINE).tokens == expected
    assert any(n == 2 and maker != main for maker, n in makers)
    assert not any(n > 1 and maker == main for maker, n in makers), "the main thread decodes others' rows"
    llm.reset()  # nobody uses it any more


def test_ctrl_c_at_any_moment(llm: MaskProbeLlama) -> None:
    expected = [llm.generate(TEXT, seed=seed, **OPTIONS).tokens for seed in range(2)]
    rng, ended = random.Random(3), threading.Event()

    def again_and_again(seed: int) -> int:
        n = 0
        while not ended.is_set():
            assert llm.generate(TEXT, seed=seed, **OPTIONS).tokens == expected[seed]
            n += 1
        return n

    with ThreadPoolExecutor(2) as threads:
        others = [threads.submit(again_and_again, seed) for seed in range(2)]
        try:
            for _ in range(25):
                with pytest.raises(KeyboardInterrupt), interrupt_after(rng.uniform(0.001, 0.05)):
                    llm.generate(TEXT, **OPTIONS | {"max_tokens": 1900})
        finally:
            ended.set()
        assert all(other.result(DEADLINE) > 0 for other in others)
    assert llm.generate(TEXT, seed=0, **OPTIONS).tokens == expected[0]
    llm.reset()
