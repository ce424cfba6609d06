"""The order in which a suite runs its settings."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from maskprobe.bench import runs
from maskprobe.bench.opponents import OpponentError, Usage
from maskprobe.bench.prompts import Case
from maskprobe.bench.results import Results
from maskprobe.results import Generation, Stats


class Recorder:
    """Answers anything, and notes that it was asked."""

    def __init__(self, name: str, asked: list[str], fails: bool = False) -> None:
        self.name, self.asked, self.fails = name, asked, fails

    def generate(self, prompt: Sequence[int], max_tokens: int, **options: Any) -> Generation:
        self.asked.append(self.name)
        if self.fails:
            raise OpponentError("crashed")
        return Generation("", [1, 2], "length", Stats(predicted_n=2, predicted_ms=1.0, passes=1), [], [])

    def usage(self) -> Usage:
        return Usage(0.0, 0.0)

    def close(self) -> None:
        self.asked.append("closed")


def run(names: Sequence[str], n_prompts: int, fails: str = "") -> tuple[list[str], Results]:
    asked: list[str] = []
    results = Results({})
    cases = [(Case(i, "qa", ""), [1]) for i in range(n_prompts)]
    llm: Any = Recorder("plain", asked)
    stock: dict[str, Callable[[], Any]] = {name: partial(Recorder, name, asked, name == fails) for name in names}
    console = Console(file=io.StringIO())
    runs.run(llm, cases, {}, stock, results, plain=True, max_tokens=2, console=console)
    assert [name for name in asked if name == "closed"] == ["closed"] * len(names)
    return [name for name in asked if name != "closed"], results


def test_everyone_runs_after_everyone() -> None:
    # Who runs right after a certain other may be slower for it, so no order is kept.
    asked, results = run(("a", "b"), 60)
    assert {name: asked.count(name) for name in ("plain", "a", "b")} == {"plain": 60, "a": 60, "b": 60}
    turns = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    orders = {tuple(turn) for turn in turns}
    assert len(orders) == 6
    assert [run.setting for run in results.runs[:3]] == ["plain", "a", "b"]  # results are in one order all the same
    assert all(run.equal_to_plain for run in results.runs)
    assert run(("a", "b"), 60)[0] == asked  # and a suite can be repeated


def test_a_mode_that_crashes_leaves_the_others() -> None:
    asked, results = run(("a", "b"), 10, fails="a")
    assert asked.count("a") == 1
    assert asked.count("b") == asked.count("plain") == 10
    assert results.failed == {"a": "crashed"}
    assert results.settings() == ["plain", "b"]
