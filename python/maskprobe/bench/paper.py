"""The published tables of [ESP], measured again: our acceptance lengths beside the paper's.

The paper measured 8B models on SpecBench; here any model runs on any prompts, so figures are to be compared in how
they rank settings, not in their size.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ..speculation import Speculation
from .results import PLAIN, Results
from .summary import summarize


@dataclass(frozen=True)
class Row:
    """A setting, and the acceptance length that the paper has for it (LLaMA3.1-8B-Instruct), if any."""

    label: str
    speculation: Speculation
    published: float | None = None


@dataclass(frozen=True)
class Question:
    """One table of the paper."""

    title: str
    rows: tuple[Row, ...]
    temperature: float = 0.0
    note: str = ""


def _paper(**options: object) -> Speculation:
    """The published defaults at 60 rows, with something else."""
    defaults: dict[str, object] = {"masks": 1, "tree": (29,), "probe": "prompt-mean", "update": 0.1}
    return Speculation(**{**defaults, **options})  # type: ignore[arg-type]


QUESTIONS: dict[str, Question] = {
    "1": Question(
        "rows per pass",
        (
            Row("10 rows, [4]", Speculation.paper(10)),
            Row("30 rows, [14]", Speculation.paper(30), 1.63),
            Row("60 rows, [29]", Speculation.paper(60), 1.71),
            Row("ours, at most 10 rows", Speculation(budget=10)),
            Row("ours, at most 30 rows", Speculation(budget=30)),
            Row("ours, at most 60 rows", Speculation(budget=60)),
        ),
    ),
    "2": Question(
        "static and dynamic trees, 60 rows",
        (
            Row("static [29]", _paper(), 1.71),
            Row("static [15, 4]", _paper(masks=2, tree=(15, 4)), 1.71),
            Row("dynamic, 1 mask", _paper(tree="dynamic", block=60)),
            Row("dynamic, 2 masks", _paper(masks=2, tree="dynamic", block=60)),
        ),
        note="the paper says that the dynamic tree matches the best static one without a search",
    ),
    "3": Question(
        "masks per node, 60 to 64 rows",
        (
            Row("one, [29]", _paper(), 1.73),
            Row("two, [15, 4]", _paper(masks=2, tree=(15, 4)), 1.71),
            Row("three, [7, 5, 3]", _paper(masks=3, tree=(7, 5, 3)), 1.57),
        ),
    ),
    "4": Question(
        "start vectors, 60 rows",
        (
            Row("mean of the prompt", _paper(), 1.71),
            Row("sample", _paper(probe="sample"), 1.69),
            Row("last k", _paper(probe="last-k"), 1.67),
            Row("mean of the table, constant", _paper(probe="table-mean", update=0.0)),
        ),
        note="the last line is not in the paper",
    ),
    "5": Question(
        "update of the masks, 60 rows",
        tuple(Row(f"lambda {update:g}", _paper(update=update)) for update in (0.0, 0.01, 0.1, 0.5)),
    ),
    "6": Question(
        "pruning of repeated tokens, 60 rows",
        (Row("on", _paper()), Row("off", _paper(prune=False))),
    ),
    "7": Question(
        "temperature 1, 60 rows",
        (Row("static [29]", _paper()), Row("ours, at most 60 rows", Speculation(budget=60))),
        temperature=1.0,
        note="every token is still one draw of the sampler from the model's own distribution",
    ),
}


def show(question: Question, results: Results, console: Console) -> None:
    """Prints our column beside the published one."""
    header = results.header
    title = f"{question.title}: tokens per pass, {header['model']}, {header['prompts']} prompts"
    table = Table(title=title, title_justify="left")
    table.add_column("setting")
    for column in ("rows/pass", "ours", "other outputs", "[ESP], 8B", "equal to plain"):
        table.add_column(column, justify="right")
    for row in question.rows:
        runs = [run for run in results.runs if run.setting == row.label]
        pooled, other = summarize(runs), summarize([run for run in runs if not run.looping])
        table.add_row(
            row.label,
            f"{pooled.rows_per_pass:.1f}" if pooled.rows_per_pass else "-",
            f"{pooled.acceptance_length:.3f}" if pooled.acceptance_length else "-",
            f"{other.acceptance_length:.3f}" if other.acceptance_length else "-",
            f"{row.published:.2f}" if row.published else "-",
            f"{pooled.n_equal}/{pooled.n_compared}" if pooled.n_compared else "-",
        )
    console.print(table)
    if question.note:
        console.print(question.note, style="dim")


def settings(question: Question) -> dict[str, Speculation]:
    """The settings of a question by label."""
    assert PLAIN not in {row.label for row in question.rows}
    return {row.label: row.speculation for row in question.rows}
