"""Benchmark: settings against plain decoding on a file of prompts, interleaved prompt by prompt.

Ratios are taken between neighbours in time, so that they hold on a noisy machine; counts (passes, rows)
do not depend on the machine at all. Knows prompts files, runs and tables.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from . import __version__
from .binding import llama_cpp
from .errors import MaskProbeError
from .llama import MaskProbeLlama
from .opponents import STOCK, LlamaServer, OpponentError, find_server
from .results import Generation
from .speculation import Speculation

PLAIN = "plain"
_LOOPING = 0.7  # an output whose share of distinct 4-grams is below this repeats itself


@dataclass(frozen=True)
class Case:
    """One prompt: the first turn of a SpecBench question."""

    question_id: int | str
    category: str
    text: str


@dataclass(frozen=True)
class Run:
    """One generation for one prompt."""

    question_id: int | str
    category: str
    setting: str
    looping: bool
    equal_to_plain: bool | None  # None when plain decoding was not run
    speed_ratio: float | None  # to plain decoding of the same prompt
    stats: dict[str, Any]


def read_prompts(path: Path) -> list[Case]:
    """Reads JSON lines with question_id, category and turns.

    Raises:
        MaskProbeError: the file cannot be read or a line does not fit; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MaskProbeError(f"prompt file {path} cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            question = json.loads(line)
            case = Case(question["question_id"], str(question["category"]), question["turns"][0])
            if not isinstance(case.text, str) or not case.text:
                raise ValueError("the first turn is not a text")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise MaskProbeError(f"{path}, line {number}: not a SpecBench question ({error!r})") from error
        cases.append(case)
    if not cases:
        raise MaskProbeError(f"{path} holds no prompts")
    return cases


def choose(
    llm: MaskProbeLlama, cases: Sequence[Case], limit: int | None, max_prompt_tokens: int
) -> list[tuple[Case, list[int]]]:
    """The prompts to run, with their ids: short enough, and at most limit, taken from all categories in turn."""
    by_category: dict[str, list[tuple[Case, list[int]]]] = {}
    for case in cases:
        ids = llm.apply_chat_template([{"role": "user", "content": case.text}])
        if len(ids) <= max_prompt_tokens:
            by_category.setdefault(case.category, []).append((case, ids))
    rounds = max(map(len, by_category.values()), default=0)
    in_turn = [group[i] for i in range(rounds) for group in by_category.values() if i < len(group)]
    return in_turn[:limit]


def run(
    llm: MaskProbeLlama,
    cases: Sequence[tuple[Case, list[int]]],
    settings: Mapping[str, Speculation],
    *,
    stock: Mapping[str, LlamaServer],
    plain: bool,
    max_tokens: int,
    report: Report,
    console: Console,
) -> None:
    """Greedy generations for every prompt under every setting and by every stock mode, added to the report."""
    # What is learned carries over from prompt to prompt, as in use; but not between settings, or an answer would be
    # drafted from what another setting has just seen of it.
    shared = sum(speculation.is_mixed() for speculation in settings.values()) > 1
    report.header |= _header(llm, settings, max_tokens, len(cases))
    running = dict(stock)
    for case, ids in track(cases, "prompts", console=console, transient=True):
        reference: Generation | None = None
        modes: list[tuple[str, bool | Speculation]] = [(PLAIN, False)] if plain else []
        for name, speculate in [*modes, *settings.items()]:
            if shared:
                llm.reset(learned=True)
            out = llm.generate(ids, max_tokens=max_tokens, temperature=0.0, speculate=speculate, cache_prompt=False)
            reference = out if name == PLAIN else reference
            report.runs.append(_describe(case, name, out, reference))
        for name, server in list(running.items()):
            try:
                out = server.generate(ids, max_tokens)
            except OpponentError as error:
                report.failed[name] = str(error)  # the others go on
                del running[name]
            else:
                report.runs.append(_describe(case, name, out, reference))


def start_stock(
    stack: ExitStack, report: Report, names: Sequence[str], program: Path | None, model: Path, llm: MaskProbeLlama
) -> dict[str, LlamaServer]:
    """Starts the named stock modes beside a loaded model; what does not start is noted in the report."""
    servers = {}
    for name in STOCK if "all" in names else names:
        if name not in STOCK:
            raise ValueError(f"unknown stock mode {name!r}; choose from {', '.join(STOCK)} or all")
        try:
            server = LlamaServer(find_server(program), model, STOCK[name], n_ctx=llm.n_ctx(), n_threads=llm.n_threads())
        except OpponentError as error:
            report.failed[name] = str(error)
        else:
            servers[name] = stack.enter_context(server)
    return servers


def _describe(case: Case, name: str, out: Generation, reference: Generation | None) -> Run:
    return Run(
        case.question_id,
        case.category,
        name,
        is_looping((reference or out).tokens),
        None if reference is None else out.tokens == reference.tokens,
        None if reference is None else out.stats.predicted_per_second / reference.stats.predicted_per_second,
        out.stats.as_dict(),
    )


def is_looping(tokens: Sequence[int]) -> bool:
    """Whether an output repeats itself: few of its 4-grams are distinct. Loops flatter every drafter."""
    grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
    return bool(grams) and len(set(grams)) / len(grams) < _LOOPING


def _header(llm: MaskProbeLlama, settings: Mapping[str, Speculation], max_tokens: int, n: int) -> dict[str, Any]:
    return {
        "maskprobe": __version__,
        "llama_cpp_python": llama_cpp.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "model": llm.description(),
        "prompts": n,
        "max_tokens": max_tokens,
        "settings": {name: _jsonable(asdict(s)) for name, s in settings.items()},
    }


def _jsonable(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, (int, float, str, tuple, type(None))) else "array" for k, v in settings.items()}


@dataclass
class Report:
    """All runs of one benchmark."""

    header: dict[str, Any] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # stock modes that could not be run, and why

    def write(self, path: Path) -> None:
        """Writes header and runs as one JSON document."""
        document = {"header": self.header, "failed": self.failed, "runs": [asdict(r) for r in self.runs]}
        path.write_text(json.dumps(document, indent=1) + "\n")

    def show(self, console: Console) -> None:
        """Prints one table pooled by kind of output, and one by category."""
        setting_names = list(dict.fromkeys(run.setting for run in self.runs))
        console.print(f"{self.header['model']}, {self.header['prompts']} prompts x {self.header['max_tokens']} tokens")
        pooled = _table("pooled")
        for name in setting_names:
            runs = [run for run in self.runs if run.setting == name]
            pooled.add_row(name, *_summary(runs))
            for label, looping in (("  looping outputs", True), ("  other outputs", False)):
                if group := [run for run in runs if run.looping is looping]:
                    pooled.add_row(label, *_summary(group), style="dim")
        console.print(pooled)
        for name, why in self.failed.items():
            console.print(f"{name} could not be run: {why}", soft_wrap=True, markup=False)
        for name in setting_names:
            if name != PLAIN:
                by_category = _table(f"by category: {name}")
                for category in dict.fromkeys(run.category for run in self.runs):
                    group = [run for run in self.runs if run.setting == name and run.category == category]
                    by_category.add_row(category, *_summary(group))
                console.print(by_category)
                self._show_reliability(console, name)

    def _show_reliability(self, console: Console, setting: str) -> None:
        """Prints how often drafted tokens were accepted against how often they were said to be."""
        kept = [run.stats["reliability"] for run in self.runs if run.setting == setting and run.stats["reliability"]]
        if not kept:
            return
        table = Table(title=f"drafted tokens by their expected acceptance: {setting}", title_justify="left")
        for column in ("class", "drafted", "expected", "accepted"):
            table.add_column(column, justify="right")
        for i, classes in enumerate(zip(*kept, strict=True)):
            n, n_true, said = (sum(column) for column in zip(*classes, strict=True))
            if n:
                low, high = i / len(kept[0]), (i + 1) / len(kept[0])
                table.add_row(f"{low:.1f}-{high:.1f}", str(n), f"{said / n:.3f}", f"{n_true / n:.3f}")
        console.print(table)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("setting", "prompts", "tokens/pass", "rows/pass", "tokens/s", "speed, median", "speed, pooled"):
        table.add_column(column, justify="left" if column == "setting" else "right", overflow="fold")
    table.add_column("equal", justify="right")
    return table


def _summary(runs: Sequence[Run]) -> list[str]:
    """Figures of a group of runs; tokens and passes are pooled before they are divided."""

    def total(key: str) -> float:
        return float(sum(run.stats[key] for run in runs))

    ratios = [run.speed_ratio for run in runs if run.speed_ratio is not None]
    # Plain decoding's time for the same prompts, from each run's ratio to it.
    plain_ms = sum(run.stats["predicted_ms"] * run.speed_ratio for run in runs if run.speed_ratio is not None)
    equal = [run.equal_to_plain for run in runs if run.equal_to_plain is not None]
    passes = total("passes")
    return [
        str(len(runs)),
        f"{(total('predicted_n') - len(runs)) / passes:.3f}" if passes else "-",
        f"{total('rows') / passes:.1f}" if passes else "-",
        f"{1e3 * total('predicted_n') / total('predicted_ms'):.1f}",
        f"{statistics.median(ratios):.3f}" if ratios else "-",
        f"{plain_ms / total('predicted_ms'):.3f}" if ratios else "-",
        f"{sum(equal)}/{len(equal)}" if equal else "-",
    ]
