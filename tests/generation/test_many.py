"""generate_many: prompts of a list at once, answers as they end, and an end to what nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from maskprobe import MaskProbeLlama

TEXT = "the tree of the sea and the tree of the sea and the tree"
TOO_LONG = [1] * 600
DEADLINE = 60.0


@pytest.fixture(scope="module")
def tiny(tiny_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=512, n_threads=1, n_parallel=3, seed=1) as llm:
        yield llm


def test_many_prompts(tiny: MaskProbeLlama) -> None:
    prompts: list[str | list[int]] = [TEXT[:n] for n in range(8, 40, 4)]
    prompts.insert(3, TOO_LONG)
    taken = 0

    def counted() -> Iterator[str | list[int]]:
        nonlocal taken
        for prompt in prompts:
            taken += 1
            yield prompt

    done: list[int] = []
    found = {}
    for finished in tiny.generate_many(counted(), max_tokens=12, temperature=0.0, progress=done.append):
        found[finished.index] = finished
        assert taken <= len(found) + 3
    assert done == list(range(1, len(prompts) + 1))
    assert sorted(found) == list(range(len(prompts)))
    assert "600 tokens" in str(found.pop(3).error)
    for i, finished in found.items():
        assert finished.generation is not None
        assert finished.generation.tokens == tiny.generate(prompts[i], max_tokens=12, temperature=0.0).tokens


def test_as_many_run_as_there_are_seats(tiny: MaskProbeLlama) -> None:
    """Each waits until all have begun."""
    begun: set[int] = set()
    all_begun = threading.Event()

    def before_pass() -> None:
        begun.add(threading.get_ident())
        if len(begun) == 3:
            all_begun.set()
        assert all_begun.wait(DEADLINE)

    found = list(tiny.generate_many([TEXT] * 3, max_tokens=4, before_pass=before_pass))
    assert [finished.error for finished in found] == [None] * 3


def test_what_ends_first_comes_first(tiny: MaskProbeLlama) -> None:
    seen = threading.Event()

    def before_pass() -> None:
        assert seen.wait(DEADLINE)

    with closing(tiny.generate_many([TEXT, TOO_LONG], max_tokens=4, before_pass=before_pass)) as ended:
        assert next(ended).index == 1
        seen.set()
        last = next(ended)
    assert (last.index, last.error) == (0, None)


def test_closing_gives_up_what_runs(tiny: MaskProbeLlama) -> None:
    n_passes = 0

    def before_pass() -> None:
        nonlocal n_passes
        n_passes += 1

    endless = dict.fromkeys(tiny.engine.model.vocab.ends(), -100.0)
    some = tiny.generate_many(
        [TEXT, TOO_LONG, *[TEXT] * 50], max_tokens=400, logit_bias=endless, speculate=False, before_pass=before_pass
    )
    next(some)
    some.close()
    assert n_passes < 200
    tiny.reset()  # nobody uses it any more


def test_an_interrupt_in_one_ends_all(tiny: MaskProbeLlama) -> None:
    def before_pass() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(tiny.generate_many([TEXT] * 5, max_tokens=4, before_pass=before_pass))
    tiny.reset()
