"""The published tables of [ESP], measured again: our acceptance lengths beside the paper's.

The paper measured 8B models on SpecBench; here any model runs on any prompts, so figures are to be compared in how
they rank settings, not in their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from maskprobe.bench.results import Results, Run
from maskprobe.bench.summary import summarize
from maskprobe.notation import parse_speculation
from maskprobe.speculation import Speculation

NAIVE = "naive"


@dataclass(frozen=True)
class Row:
    """A setting in the notation of the command line, and what the paper has for it, if anything: the acceptance length
    of LLaMA3.1-8B-Instruct, or speeds."""

    label: str
    setting: str
    published: float | None = None
    speed: str = ""


@dataclass(frozen=True)
class Question:
    """One table of the paper."""

    title: str
    rows: tuple[Row, ...]
    temperature: float = 0.0
    note: str = ""


def _paper(tree: str, masks: int = 1, probe: str = "prompt-mean", update: float = 0.1) -> str:
    """The published method with another tree, start vector or update."""
    return f"masks={masks},tree={tree},probe={probe},update={update:g}"


# The paper's at 60 rows. Tables that share a setting share its runs.
_PAPER_60 = _paper("29")
_PAPER_15_4 = _paper("15x4", masks=2)

QUESTIONS: dict[str, Question] = {
    "1": Question(
        "rows per pass",
        (
            Row("10 rows, [4]", _paper("4")),
            Row("30 rows, [14]", _paper("14"), 1.63),
            Row("60 rows, [29]", _PAPER_60, 1.71),
            Row("ours, at most 10 rows", "budget=10"),
            Row("ours, at most 30 rows", "budget=30"),
            Row("ours, at most 60 rows", "budget=60"),
        ),
    ),
    "2": Question(
        "static and dynamic trees, 60 rows",
        (
            Row("static [29]", _PAPER_60, 1.71),
            Row("static [15, 4]", _PAPER_15_4, 1.71),
            Row("dynamic, 1 mask", _paper("dynamic,block=60")),
            Row("dynamic, 2 masks", _paper("dynamic,block=60", masks=2)),
        ),
        note="the paper says that the dynamic tree matches the best static one without a search",
    ),
    "3": Question(
        "masks per node, 60 to 64 rows",
        (
            Row("one, [29]", _PAPER_60, 1.73),
            Row("two, [15, 4]", _PAPER_15_4, 1.71),
            Row("three, [7, 5, 3]", _paper("7x5x3", masks=3), 1.57),
        ),
    ),
    "4": Question(
        "start vectors, 60 rows",
        (
            Row("mean of the prompt", _PAPER_60, 1.71),
            Row("sample", _paper("29", probe="sample"), 1.69),
            Row("last k", _paper("29", probe="last-k"), 1.67),
            Row("mean of the table, constant", _paper("29", probe="table-mean", update=0.0)),
        ),
        note="the last line is not in the paper",
    ),
    "5": Question(
        "update of the masks, 60 rows",
        tuple(Row(f"lambda {update:g}", _paper("29", update=update)) for update in (0.0, 0.01, 0.1, 0.5)),
    ),
    "6": Question(
        "pruning of repeated tokens, 60 rows",
        (Row("on", _PAPER_60), Row("off", _PAPER_60 + ",prune=false")),
    ),
    "7": Question(
        "temperature 1, 60 rows",
        (Row("static [29]", _PAPER_60), Row("ours, at most 60 rows", "budget=60")),
        temperature=1.0,
        note="every token is still one draw of the sampler from the model's own distribution",
    ),
    "8": Question(
        "building the block, 60 rows",
        (
            Row("ours: masks ride in the block", _PAPER_60, speed="1.22 / 1.38"),
            Row("naive: a pass of their own, built in Python", NAIVE, speed="0.96 / 1.07"),
        ),
        note="[ESP] compares cached with naive building on GPUs, 3B / 8B: speed against plain decoding",
    ),
}


def questions(tables: Sequence[str]) -> list[Question]:
    """The tables of these numbers, all at one temperature.

    Raises:
        ValueError: a number is unknown, or the tables are of different temperatures.
    """
    for table in tables:
        if table not in QUESTIONS:
            raise ValueError(f"--table must be one of {', '.join(QUESTIONS)}, got {table!r}")
    chosen = [QUESTIONS[table] for table in tables]
    if len({question.temperature for question in chosen}) > 1:
        raise ValueError(f"tables {', '.join(tables)} have different temperatures; measure them one by one")
    return chosen


def settings(chosen: Sequence[Question]) -> dict[str, Speculation]:
    """The settings of tables, each once."""
    rows = (row for question in chosen for row in question.rows if row.setting != NAIVE)
    return {row.setting: parse_speculation(row.setting) for row in rows}


def has_naive(chosen: Sequence[Question]) -> bool:
    """Whether a table compares with naive building."""
    return any(row.setting == NAIVE for question in chosen for row in question.rows)


def show(question: Question, results: Results, console: Console) -> None:
    """Prints our column beside the published one."""
    header = results.header
    n_prompts = len(results.finished())
    table = Table(
        title=f"{question.title}: {header['model']}, {n_prompts} prompts x {header['max_tokens']} tokens",
        title_justify="left",
    )
    table.add_column("setting")
    columns = _building_cells if has_naive([question]) else _length_cells
    for column in columns(question.rows[0], []):
        table.add_column(column, justify="right")
    for row in question.rows:
        cells = columns(row, [run for run in results.runs if run.setting == row.setting])
        table.add_row(row.label, *cells.values())
    console.print(table)
    if question.note:
        console.print(question.note, style="dim")


def _length_cells(row: Row, runs: Sequence[Run]) -> dict[str, str]:
    pooled, other = summarize(runs), summarize([run for run in runs if not run.looping])
    return {
        "rows/pass": _number(pooled.rows_per_pass, 1),
        "tokens/pass": _number(pooled.acceptance_length, 3),
        "other outputs": _number(other.acceptance_length, 3),
        "[ESP], 8B": _number(row.published, 2),
        "equal to plain": f"{pooled.n_equal}/{pooled.n_compared}" if pooled.n_compared else "-",
    }


def _building_cells(row: Row, runs: Sequence[Run]) -> dict[str, str]:
    n, passes, rows, accepted, host_ms = (
        sum(run.stats[name] for run in runs)
        for name in ("predicted_n", "passes", "rows", "draft_n_accepted", "host_ms")
    )
    tokens = n - len(runs)  # that came from passes
    steps = tokens - accepted  # each commits one token beside the accepted ones
    pooled = summarize(runs)
    return {
        "tokens/step": _number(tokens / steps if steps else None, 3),
        "passes/step": _number(passes / steps if steps else None, 2),
        "rows/step": _number(rows / steps if steps else None, 1),
        "host ms/step": _number(host_ms / steps if steps else None, 2),
        "speed": _number(pooled.pooled_ratio, 2),
        "[ESP]": row.speed or "-",
        "equal to plain": f"{pooled.n_equal}/{pooled.n_compared}" if pooled.n_compared else "-",
    }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
