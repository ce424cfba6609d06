"""Results of a benchmark: JSON lines, a header and then one run per line, written as they come.

A file that was cut short is gone on with: what it has for whole prompts stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import MaskProbeError

PLAIN = "plain"
STOCK_PLAIN = "server-plain"
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One generation for one prompt."""

    question_id: int | str
    category: str
    setting: str
    looping: bool  # plain decoding's output repeats itself
    equal_to_plain: bool | None  # None when plain decoding was not run
    speed_ratio: float | None  # tokens/s over those of the results' baseline for the same prompt
    wall_ms: float  # of the whole answer, prompt included
    cpu_ms: float  # of all threads
    stats: dict[str, Any]
    rss_mb: float = 0.0  # memory of the process after the answer, 0 = not known


@dataclass
class Results:
    """Header and runs of one benchmark; with a path, written line by line as they are added."""

    header: dict[str, Any]
    path: Path | None = None
    runs: list[Run] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # stock modes that could not be run, and why
    baseline: str = PLAIN  # the setting that speeds are over

    def begin(self) -> None:
        """Starts the file, or takes over what it holds if it belongs to the same benchmark.

        Raises:
            MaskProbeError: it holds another benchmark's results, or cannot be written.
        """
        if self.path is None:
            return
        try:
            if self.path.exists() and self.path.stat().st_size:
                self._take_over(load(self.path))
            self._rewrite()
        except OSError as error:
            raise MaskProbeError(f"results cannot be written to {self.path}: {error.strerror}") from error

    def add(self, runs: Iterable[Run]) -> None:
        """Adds the runs of one prompt."""
        new = list(runs)
        self.runs += new
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(run)) + "\n" for run in new)

    def fail(self, setting: str, why: str) -> None:
        """Notes a stock mode that could not be run."""
        self.failed[setting] = why
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"failed": setting, "why": why}) + "\n")

    def finished(self) -> set[int | str]:
        """The prompts that have their runs."""
        return {run.question_id for run in self.runs}

    def settings(self) -> list[str]:
        """The settings that have runs, in order."""
        return list(dict.fromkeys(run.setting for run in self.runs))

    def against_stock(self) -> Results:
        """The same, with speeds over those of stock llama.cpp's plain decoding; as they are where it was not run."""
        stock = {run.question_id: _speed(run) for run in self.runs if run.setting == STOCK_PLAIN}
        if not any(stock.values()):
            return self
        runs = [replace(run, speed_ratio=_over(_speed(run), stock.get(run.question_id))) for run in self.runs]
        return replace(self, path=None, runs=runs, baseline=STOCK_PLAIN)

    def _take_over(self, old: Results) -> None:
        differs = [key for key, value in self.header.items() if key != "costs" and old.header.get(key) != value]
        if differs:
            raise MaskProbeError(
                f"{self.path} holds results of another benchmark (it differs in {', '.join(differs)}); "
                "name another file to start anew"
            )
        self.runs = old.runs

    def _rewrite(self) -> None:
        assert self.path is not None
        lines = [json.dumps({"format": FORMAT, "header": self.header})]
        lines += [json.dumps(asdict(run)) for run in self.runs]
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _speed(run: Run) -> float | None:
    """Tokens per second; None for a single token, which has no pass."""
    return run.stats["predicted_per_second"] if run.stats["passes"] else None


def _over(speed: float | None, baseline: float | None) -> float | None:
    return speed / baseline if speed is not None and baseline else None


def load(path: Path) -> Results:
    """Reads a results file; a last line that was cut short, and the unfinished prompt it is of, are left out.

    Raises:
        MaskProbeError: it is not a results file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        first = json.loads(lines[0])
        results = Results(first["header"])
        if first["format"] != FORMAT:
            raise ValueError(f"format {first['format']}")
        plain = [PLAIN] if first["header"]["plain"] else []
        wanted = {*plain, *first["header"]["settings"], *first["header"]["stock"]}
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise MaskProbeError(f"{path} is no results file of maskprobe bench ({error!r})") from error
    for number, entry in _entries(lines):
        try:
            if "failed" in entry:
                results.failed[entry["failed"]] = str(entry["why"])
            else:
                results.runs.append(_run(entry))
        except (KeyError, TypeError) as error:
            raise MaskProbeError(f"{path}, line {number}: not a run ({error!r})") from error
    wanted -= results.failed.keys()
    have: dict[int | str, set[str]] = {}
    for run in results.runs:
        have.setdefault(run.question_id, set()).add(run.setting)
    results.runs = [run for run in results.runs if wanted <= have[run.question_id]]
    return results


_NUMBER = (int, float)
_TYPES: dict[str, Any] = {
    "question_id": (int, str),
    "category": str,
    "setting": str,
    "looping": bool,
    "equal_to_plain": (bool, type(None)),
    "speed_ratio": (*_NUMBER, type(None)),
    "wall_ms": _NUMBER,
    "cpu_ms": _NUMBER,
    "stats": dict,
}


def _run(entry: dict[str, Any]) -> Run:
    run = Run(**entry)
    for name, kind in _TYPES.items():
        if not isinstance(value := getattr(run, name), kind):
            raise TypeError(f"{name} is {value!r}")
    return run


def _entries(lines: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines[1:], start=2):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            if number < len(lines):
                raise MaskProbeError(f"line {number} of the results is damaged; remove it") from None
