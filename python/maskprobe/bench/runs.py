"""Runs prompts under all settings, one prompt after the other, so that neighbours in time are compared."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.progress import Progress

from .. import __version__
from ..llama import MaskProbeLlama
from ..llamacpp.installed import llama_cpp
from ..results import Generation
from ..speculation import Speculation
from .opponents import OpponentError, Usage, usage_of
from .prompts import Case, is_looping
from .results import PLAIN, Results, Run

# Settings that compare methods with equal machinery; more in the notation of maskprobe.notation.
PRESETS: dict[str, Speculation] = {
    "auto": Speculation(),
    "budget-10": Speculation(budget=10),
    "budget-30": Speculation(budget=30),
    "budget-60": Speculation(budget=60),
    "paper-10": Speculation.paper(10),
    "paper-30": Speculation.paper(30),
    "paper-60": Speculation.paper(60),
    "lookup": Speculation(sources=("ngrams",)),
    "recycling": Speculation(sources=("adjacency",)),
    "lookup-10": Speculation(sources=("ngrams",), budget=10),
    "recycling-10": Speculation(sources=("adjacency",), budget=10),
}


class Opponent(Protocol):
    """Something else that answers prompts greedily."""

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation: ...
    def usage(self) -> Usage: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured: prompts with their ids, under settings of ours.

    Args:
        plain: decode plainly too, for ratios and equality.
        temperature: of our settings; stock modes are greedy, so they fit 0 only.
    """

    cases: Sequence[tuple[Case, list[int]]]
    settings: Mapping[str, Speculation]
    plain: bool
    max_tokens: int
    temperature: float = 0.0

    def modes(self) -> dict[str, bool | Speculation]:
        """By name, how our generations are asked to draft."""
        return {**({PLAIN: False} if self.plain else {}), **self.settings}


def header(llm: MaskProbeLlama, model: Path, plan: Plan, stock: Sequence[str]) -> dict[str, Any]:
    """What results depend on: versions, machine, model, settings, prompts."""
    prompts = hashlib.sha256(repr([ids for _, ids in plan.cases]).encode()).hexdigest()[:16]
    costs = llm.engine.knowledge.measured_costs() if llm.drafting.shape != "none" else {}
    return {
        "maskprobe": __version__,
        "llama_cpp_python": llama_cpp.__version__,
        "system": llama_cpp.llama_print_system_info().decode().strip(),
        "machine": ", ".join([_processor(), f"{os.cpu_count()} CPUs", platform.system(), *_remote(llm)]),
        "model": llm.description(),
        "model_file": model.name,
        "model_sha256": _sha256(model),
        "n_ctx": llm.n_ctx(),
        "n_threads": llm.n_threads(),
        "n_gpu_layers": llm.n_gpu_layers,
        "prompts": len(plan.cases),
        "prompts_sha256": prompts,
        "max_tokens": plan.max_tokens,
        "plain": plan.plain,
        "settings": {name: _jsonable(asdict(speculation)) for name, speculation in plan.settings.items()},
        "stock": list(stock),
        "costs": {str(rows): ms for rows, ms in costs.items()},
    }


def _remote(llm: MaskProbeLlama) -> list[str]:
    return [f"RPC server {server}" for server in llm.rpc_servers]


def run(
    load: Callable[[], AbstractContextManager[MaskProbeLlama]],
    plan: Plan,
    stock: Mapping[str, Callable[[], Opponent]],
    results: Results,
    console: Console,
    *,
    per_round: int | None = None,
) -> None:
    """Generations for every prompt that the results lack, under every setting and by every stock mode.

    Args:
        per_round: after so many prompts the model is loaded and stock modes are started anew; None = never.
    """
    done = results.finished()
    left = [(case, ids) for case, ids in plan.cases if case.question_id not in done]
    per_round = per_round or len(left) or 1
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("prompts", total=len(left))
        for first in range(0, len(left), per_round):
            part = left[first : first + per_round]
            with ExitStack() as stack:
                one = _Round(plan, results)
                one.start(stack, load, stock, seed=part[0][0].question_id)
                for case, ids in part:
                    results.add(one.answers(case, ids))
                    progress.advance(task)


class _Round:
    """The model and the stock modes between two starts."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._plan = plan
        self._results = results
        self._modes = plan.modes()
        self._opponents: dict[str, Opponent] = {}

    def start(
        self,
        stack: ExitStack,
        load: Callable[[], AbstractContextManager[MaskProbeLlama]],
        stock: Mapping[str, Callable[[], Opponent]],
        seed: int | str,
    ) -> None:
        # A process that was started later can be faster by some percent than one that runs the same code.
        started: dict[str, Opponent] = {}
        names: list[str | None] = [None, *(name for name in stock if name not in self._results.failed)]
        for name in random.Random(seed).sample(names, len(names)):
            if name is None:
                self._llm = stack.enter_context(load())
                continue
            try:
                started[name] = stock[name]()
            except OpponentError as error:
                self._results.fail(name, str(error))
            else:
                stack.callback(started[name].close)
        self._opponents = {name: started[name] for name in stock if name in started}

    def answers(self, case: Case, ids: list[int]) -> list[Run]:
        """One prompt's runs; opponents that fail are dropped."""
        finished: dict[str, tuple[Generation, _Spent]] = {}
        names = [*self._modes, *self._opponents]
        # What ran just before can slow what comes next, so nobody keeps a place.
        for name in random.Random(case.question_id).sample(names, len(names)):
            try:
                finished[name] = self._theirs(name, ids) if name in self._opponents else self._ours(name, ids)
            except OpponentError as error:
                self._results.fail(name, str(error))  # the others go on
                del self._opponents[name]
        reference = finished[PLAIN][0] if PLAIN in finished else None
        return [_describe(case, name, *finished[name], reference) for name in names if name in finished]

    def _theirs(self, name: str, ids: list[int]) -> tuple[Generation, _Spent]:
        opponent = self._opponents[name]
        clock = _Clock(opponent.usage)
        return opponent.generate(ids, self._plan.max_tokens), clock.read()

    def _ours(self, name: str, ids: list[int]) -> tuple[Generation, _Spent]:
        # What is learned carries over from prompt to prompt, as in use; but not between settings, or an answer would
        # be drafted from what another setting has just seen of it.
        if sum(isinstance(mode, Speculation) and mode.is_mixed() for mode in self._modes.values()) > 1:
            self._llm.reset(learned=True)
        clock = _Clock(partial(usage_of, os.getpid()))
        out = self._llm.generate(
            ids,
            max_tokens=self._plan.max_tokens,
            temperature=self._plan.temperature,
            seed=1,
            speculate=self._modes[name],
            cache_prompt=False,
        )
        return out, clock.read()


class _Spent(NamedTuple):
    wall_ms: float
    cpu_ms: float
    rss_mb: float


class _Clock:
    """Wall and CPU time since it was made, and memory."""

    def __init__(self, usage: Callable[[], Usage]) -> None:
        self._usage = usage
        self._before, self._wall = usage(), time.perf_counter()

    def read(self) -> _Spent:
        wall, now = time.perf_counter(), self._usage()
        return _Spent(1e3 * (wall - self._wall), 1e3 * (now.cpu_seconds - self._before.cpu_seconds), now.rss_mb)


def _describe(case: Case, name: str, out: Generation, spent: _Spent, reference: Generation | None) -> Run:
    return Run(
        question_id=case.question_id,
        category=case.category,
        setting=name,
        looping=is_looping((reference or out).tokens),
        equal_to_plain=None if reference is None or not out.tokens else out.tokens == reference.tokens,
        speed_ratio=_ratio(out, reference),
        wall_ms=spent.wall_ms,
        cpu_ms=spent.cpu_ms,
        stats=out.stats.as_dict(),
        rss_mb=spent.rss_mb,
    )


def _ratio(out: Generation, reference: Generation | None) -> float | None:
    # One token has no pass and so no speed.
    if reference is None or not out.stats.passes or not reference.stats.passes:
        return None
    return out.stats.predicted_per_second / reference.stats.predicted_per_second


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _jsonable(settings: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, tuple):
            kept[key] = list(value)
        elif value is None or isinstance(value, (int, float, str)):
            kept[key] = value
        elif isinstance(value, Mapping):
            kept[key] = {str(k): v for k, v in value.items()}
        else:
            kept[key] = "array"
    return kept
