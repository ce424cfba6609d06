"""Results as tables on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .results import PLAIN, Results
from .summary import Summary, acceptance_by_depth, pace, reliability, summarize

_DEPTHS = 8


def show(results: Results, console: Console) -> None:
    """Prints pooled figures, speed by category, acceptance by depth and how reliable expectations were.

    Speed is against stock llama.cpp's plain decoding where that was run, else against plain decoding in our core.
    """
    results, header = results.against_stock(), results.header
    prompts = f"{header['prompts']} prompts x {header['max_tokens']} tokens"
    console.print(f"{header['model']}, {prompts}, {header['n_threads']} threads, {header['machine']}")
    _show_pooled(results, console)
    for setting, why in results.failed.items():
        console.print(f"{setting} could not be run: {why}", soft_wrap=True, markup=False)
    others = [setting for setting in results.settings() if setting != PLAIN]
    _show_categories(results, [setting for setting in results.settings() if setting != results.baseline], console)
    _show_depths(results, others, console)
    for setting in others:
        _show_reliability(results, setting, console)


def _show_pooled(results: Results, console: Console) -> None:
    columns = ("setting", "prompts", "tokens/pass", "rows/pass", "tokens/s", "speed, median", "quartiles")
    title = f"pooled; speed against {results.baseline}" if _has_ratios(results) else "pooled"
    table = _table(title, *columns, "speed, pooled", "CPU ms/token", "host ms/pass", "RSS MB", "equal", "pace")
    plain = [run for run in results.runs if run.setting == PLAIN]
    for setting in results.settings():
        runs = [run for run in results.runs if run.setting == setting]
        table.add_row(setting, *_cells(summarize(runs)), _number(pace(runs, plain)))
        for label, looping in (("  looping", True), ("  other", False)):
            if group := [run for run in runs if run.looping is looping]:
                table.add_row(label, *_cells(summarize(group)), style="dim")
    console.print(table)
    if any(setting in results.header["stock"] for setting in results.settings()):
        console.print("pace: a one-row pass in that process over one of plain decoding in ours; no merit of a method")


def _show_categories(results: Results, settings: list[str], console: Console) -> None:
    categories = list(dict.fromkeys(run.category for run in results.runs))
    title = f"speed against {results.baseline} by category, pooled"
    table = _table(title if _has_ratios(results) else "tokens/pass by category", "setting", *categories)
    for setting in settings:
        cells = []
        for category in categories:
            of = summarize([run for run in results.runs if (run.setting, run.category) == (setting, category)])
            cells.append(_number(of.pooled_ratio if _has_ratios(results) else of.acceptance_length, 2))
        table.add_row(setting, *cells)
    console.print(table)


def _show_depths(results: Results, settings: list[str], console: Console) -> None:
    table = _table(
        "share of passes that accepted drafts so deep", "setting", *(str(depth + 1) for depth in range(_DEPTHS))
    )
    for setting in settings:
        runs = [run for run in results.runs if run.setting == setting]
        if any(run.stats["accepted_per_depth"] for run in runs):  # stock modes do not tell
            table.add_row(setting, *(_number(share) for share in acceptance_by_depth(runs, _DEPTHS)))
    console.print(table)


def _show_reliability(results: Results, setting: str, console: Console) -> None:
    rows = reliability([run for run in results.runs if run.setting == setting])
    if not rows:
        return
    table = _table(
        f"drafted tokens by their expected acceptance: {setting}", "class", "drafted", "expected", "accepted"
    )
    for i, (n, expected, accepted) in enumerate(rows):
        if n:
            label = f"{i / len(rows):.1f}-{(i + 1) / len(rows):.1f}"
            table.add_row(label, str(n), _number(expected), _number(accepted))
    console.print(table)


def _has_ratios(results: Results) -> bool:
    return any(run.speed_ratio is not None for run in results.runs)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i == 0)
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cells(of: Summary) -> list[str]:
    return [
        str(of.n),
        _number(of.acceptance_length),
        _number(of.rows_per_pass, 2),
        _number(of.tokens_per_second, 1),
        _number(of.median_ratio),
        "-" if of.spread is None else f"{of.spread[0]:.2f}-{of.spread[1]:.2f}",
        _number(of.pooled_ratio),
        _number(of.cpu_ms_per_token, 1),
        _number(of.host_ms_per_pass, 2),
        _number(of.rss_mb, 0),
        f"{of.n_equal}/{of.n_compared}" if of.n_compared else "-",
    ]
