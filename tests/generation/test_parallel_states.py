"""Several generations of a model with a recurrent state: each says what it says alone, whatever shares its passes."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from maskprobe import DecodeError, MaskProbeLlama, Speculation
from maskprobe.llamacpp.devices import devices

NAMES = ["lfm2", "nemotron_h", "qwen35", "qwen35moe"]
TEXT = "the tree of the sea and the tree of the sea and the tree of the"
SPECULATIONS = [
    Speculation(cost_curve={1: 1.0, 60: 1.5}),
    Speculation(budget=10, probe="table-mean"),
    Speculation(sources=("ngrams", "history"), budget=6),
    False,
]
N_LANES = 4


def requests_of(n: int, max_tokens: int) -> list[dict[str, Any]]:
    """Requests of every kind, each text several times, so that drafts come true; seeds of their own."""
    return [
        {
            "prompt": TEXT[: 12 + 7 * (i % 6)],
            "max_tokens": max_tokens - i % 5,
            "temperature": 0.8 * (i % 3 == 0),
            "seed": i,
            "speculate": SPECULATIONS[i % len(SPECULATIONS)],
        }
        for i in range(n)
    ]


def load(path: Path, **options: Any) -> MaskProbeLlama:
    return MaskProbeLlama(path, **{"n_ctx": 1024, "n_threads": 1, "n_parallel": N_LANES, "queue": True, **options})


def alone(path: Path, requests: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Token by token, one after the other, by an object that does nothing else."""
    with load(path, n_ctx=2048) as llm:
        return [llm.generate(**{**one, "speculate": False}, cache_prompt=False).tokens for one in requests]


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest, tiny_path: Callable[[str], Path]) -> Path:
    return tiny_path(request.param)


@pytest.fixture(scope="module")
def many(path: Path) -> Iterator[MaskProbeLlama]:
    with load(path) as llm:
        yield llm


def test_each_says_what_it_says_alone(path: Path, many: MaskProbeLlama) -> None:
    requests = requests_of(24, 60)
    before = many.engine.seats.n_passes
    with ThreadPoolExecutor(N_LANES) as threads:
        outs = list(threads.map(lambda one: many.generate(**one), requests))
    assert [out.tokens for out in outs] == alone(path, requests)
    n_tokens = sum(len(out.tokens) for out in outs)
    assert many.engine.seats.n_passes - before < n_tokens / 2  # passes were shared
    assert sum(out.stats.draft_n_accepted for out in outs) > n_tokens / 10
    assert many.drafting.why_in_turn is None
    assert many.drafting.snapshot_bytes % (N_LANES * many.drafting.n_snapshots) == 0


def test_lanes_come_and_go_where_cells_run_out(path: Path) -> None:
    """Streams that are given up after a few tokens, beside others; texts that leave the cells and come back."""
    requests = requests_of(24, 90)
    expected = alone(path, requests)
    rng = random.Random(5)
    takes = [rng.choice([2, 5, 1000, 1000]) for _ in requests]
    with load(path, n_ctx=256) as llm:

        def some(i: int) -> list[int]:
            with closing(llm.stream(**requests[i])) as chunks:
                return [token for chunk in islice(chunks, takes[i]) for token in chunk.tokens]

        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(some, range(len(requests))))
        figures = llm.engine.seats.figures()
    assert found == [tokens[:n] for tokens, n in zip(expected, takes, strict=True)]
    assert figures is not None
    assert figures.n_compactions > 0


def test_aborted_passes_are_made_again(path: Path) -> None:
    """All states are lost with one: everybody's tokens are decoded again, and nobody's answer changes."""
    requests = requests_of(16, 40)
    expected = alone(path, requests)
    rng, left, n_aborted = random.Random(3), 400, 0

    def abort(_: ctypes.c_void_p) -> bool:
        nonlocal left, n_aborted
        left -= 1
        if left < 0:
            left = rng.randrange(4000)
            n_aborted += 1
        return left < 0

    with load(path) as llm:
        callback = llama_cpp.ggml_abort_callback(abort)
        llama_cpp.llama_set_abort_callback(llm.engine.model.ctx, callback, None)

        def answer(one: dict[str, Any]) -> list[int] | None:
            try:
                return llm.generate(**one).tokens
            except DecodeError:
                return None  # it was alone in the decode

        with ThreadPoolExecutor(N_LANES) as threads:
            found = list(threads.map(answer, requests))
        llama_cpp.llama_set_abort_callback(llm.engine.model.ctx, llama_cpp.ggml_abort_callback(), None)
    assert n_aborted > 2
    right = [a == b for a, b in zip(found, expected, strict=True) if a is not None]
    assert all(right)
    assert len(right) > len(found) / 2


def test_chats_go_on_where_they_were(path: Path, many: MaskProbeLlama) -> None:
    many.reset()
    ids = many.tokenize(TEXT)
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 0.0}
    first = many.generate(ids, **options)
    for _ in range(2):  # others come between
        many.generate("an", max_tokens=4)
    longer = [*ids, *first.tokens, *many.tokenize(" of the sea", add_bos=False)]
    out = many.generate(longer, **options)
    assert out.stats.cache_n >= len(ids) + len(first.tokens) - 1
    assert out.tokens == many.generate(longer, cache_prompt=False, **options).tokens
    # The answer is left out of the next prompt, as templates do with thoughts: back to the end of the first.
    many.reset()
    many.generate(ids, **options)
    other = [*ids, *many.tokenize(" and the sky", add_bos=False)]
    out = many.generate(other, **options)
    assert out.stats.cache_n == len(ids)
    assert out.tokens == many.generate(other, cache_prompt=False, **options).tokens


def test_with_several_threads_answers_stay_the_same(tiny_path: Callable[[str], Path]) -> None:
    """From 257 cells on llama.cpp's attention is split among threads, unless a row has another beside it."""
    path = tiny_path("qwen35")
    requests = [{**one, "prompt": TEXT * 5 + one["prompt"]} for one in requests_of(8, 30)]
    with load(path, n_ctx=2048, n_threads=2) as llm, ThreadPoolExecutor(N_LANES) as threads:
        assert [out.tokens for out in threads.map(lambda one: llm.generate(**one), requests)] == alone(path, requests)


def test_where_states_do_not_fit_generations_take_turns(tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path("qwen35")
    requests = requests_of(4, 20)
    expected = alone(path, requests)
    with load(path) as llm:
        each = llm.drafting.snapshot_bytes / llm.drafting.n_snapshots / N_LANES
    memory = max(device.total_bytes for device in devices())
    for room, n_snapshots, why in (
        (8.5, 2, None),
        (7.5, 7, "snapshots of 4 states"),
        (0.0, 0, "no snapshots are kept"),
    ):
        with load(path, snapshot_memory=room * each / memory) as llm, ThreadPoolExecutor(N_LANES) as threads:
            assert llm.drafting.n_snapshots == n_snapshots
            assert len(llm.engine.seats.all) == (N_LANES if why is None else 1)
            assert why is None or why in str(llm.drafting)
            assert [out.tokens for out in threads.map(lambda one: llm.generate(**one), requests)] == expected
