"""The order in which a suite starts and runs its settings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from rich.console import Console
from typer.testing import CliRunner

from maskprobe import ClosedError, MaskProbeLlama
from maskprobe.bench import runs
from maskprobe.bench.opponents import OpponentError, Usage
from maskprobe.bench.prompts import Case
from maskprobe.bench.results import Results, load
from maskprobe.cli import app
from maskprobe.cli import bench as bench_command
from maskprobe.results import Generation, Stats


class Recorder:
    """Answers anything, and notes that it was asked."""

    def __init__(self, name: str, asked: list[str], life: list[str], fails: bool = False) -> None:
        self.name, self.asked, self.life, self.fails = name, asked, life, fails
        life.append(name)

    def generate(self, prompt: Sequence[int], max_tokens: int, **options: Any) -> Generation:
        self.asked.append(self.name)
        if self.fails:
            raise OpponentError("crashed")
        return Generation("", [1, 2], "length", Stats(predicted_n=2, predicted_ms=1.0, passes=1), [], [])

    def usage(self) -> Usage:
        return Usage(0.0, 0.0)

    def close(self) -> None:
        self.life.append(f"-{self.name}")


def run(
    names: Sequence[str], n_prompts: int, fails: str = "", per_round: int | None = None
) -> tuple[list[str], Results, list[str]]:
    """Who was asked, the results, and who was started and closed."""
    asked: list[str] = []
    life: list[str] = []
    results = Results({})
    cases = [(Case(i, "qa", ""), [1]) for i in range(n_prompts)]
    stock: dict[str, Callable[[], Any]] = {name: partial(Recorder, name, asked, life, name == fails) for name in names}

    def load() -> Any:
        return closing(Recorder("plain", asked, life))

    console = Console(file=io.StringIO())
    plan = runs.Plan(cases=cases, settings={}, plain=True, max_tokens=2)
    runs.run(load, plan, stock, results, console, per_round=per_round)
    return asked, results, life


def test_everyone_runs_after_everyone() -> None:
    # Who runs right after a certain other may be slower for it, so no order is kept.
    asked, results, life = run(("a", "b"), 60)
    assert {name: asked.count(name) for name in ("plain", "a", "b")} == {"plain": 60, "a": 60, "b": 60}
    turns = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    orders = {tuple(turn) for turn in turns}
    assert len(orders) == 6
    assert [run.setting for run in results.runs[:3]] == ["plain", "a", "b"]  # results are in one order all the same
    assert all(run.equal_to_plain for run in results.runs)
    assert run(("a", "b"), 60)[0] == asked  # and a suite can be repeated
    assert sorted(life) == ["-a", "-b", "-plain", "a", "b", "plain"]


def test_rounds_start_anew_in_any_order() -> None:
    # Who was started later may be faster for it.
    asked, results, life = run(("a", "b"), 100, per_round=3)
    assert len(asked) == len(results.runs) == 300
    rounds = [life[i : i + 6] for i in range(0, len(life), 6)]
    assert len(rounds) == 34
    assert len({tuple(part[:3]) for part in rounds}) == 6
    for part in rounds:
        assert part[3:] == [f"-{name}" for name in reversed(part[:3])]


def test_a_mode_that_crashes_leaves_the_others() -> None:
    asked, results, _ = run(("a", "b"), 10, fails="a")
    assert asked.count("a") == 1
    assert asked.count("b") == asked.count("plain") == 10
    assert results.failed == {"a": "crashed"}
    assert results.settings() == ["plain", "b"]
    _, results, life = run(("a", "b"), 10, fails="a", per_round=2)
    assert (life.count("a"), life.count("b")) == (1, 5)  # it is not tried again
    assert results.failed == {"a": "crashed"}


def test_a_suite_loads_the_model_once_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[MaskProbeLlama] = []

    def noted(*args: Any, **options: Any) -> MaskProbeLlama:
        loaded.append(MaskProbeLlama(*args, **options))
        return loaded[-1]

    monkeypatch.setattr(bench_command, "MaskProbeLlama", noted)
    template = "{{ messages[0]['content'] }}"
    model = tiny_models.make("llama", tmp_path / "model.gguf", chat_template=template)
    prompts = tmp_path / "prompts.jsonl"
    cases = [{"question_id": i, "category": "qa", "turns": ["the tree of the sea"]} for i in range(14)]
    prompts.write_text("\n".join(map(json.dumps, cases)))
    command = ["bench", "suite", "--prompts", str(prompts), "-m", str(model), "--max-tokens", "2"]
    command += ["--n-threads", "1", "--n-ctx", "256", "--speculation", "budget=4"]
    out = tmp_path / "out.jsonl"
    for args, n_loads in (
        ((), 2),  # two rounds
        (("--stock", "server-plain", "--llama-server", "nowhere"), 3),  # beside others its turn is drawn
        (("--out", str(out), "--limit", "1"), 1),
        (("--out", str(out), "--limit", "1"), 1),  # all is there already, and nothing is run
    ):
        loaded.clear()
        done = CliRunner().invoke(app, [*command, *args])
        assert done.exit_code == 0, done.output
        assert len(loaded) == n_loads
        for llm in loaded:
            with pytest.raises(ClosedError):
                llm.n_ctx()
    assert len(load(out).runs) == 2
