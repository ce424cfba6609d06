"""Results as plots (matplotlib) and as one self-contained HTML page (jinja2)."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import MaskProbeError
from .results import Results, Run
from .summary import acceptance_by_depth, reliability, summarize

_DEPTHS = 10
_OURS, _THEIRS = "#1f6f8b", "#b0b7bf"


def write_plots(results: Sequence[Results], folder: Path) -> list[Path]:
    """Writes every plot of every result as a PNG file.

    Raises:
        MaskProbeError: matplotlib is missing, or the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, of in enumerate((one.against_stock() for one in results), start=1):
            prefix = f"{number}-" if len(results) > 1 else ""
            for name, figure in _figures(of).items():
                path = folder / f"{prefix}{name}.png"
                figure.savefig(path, dpi=130)
                written.append(path)
    except OSError as error:
        raise MaskProbeError(f"plots cannot be written to {folder}: {error.strerror}") from error
    return written


def write_html(results: Sequence[Results], path: Path) -> None:
    """Writes one page with tables and plots that needs no other file.

    Raises:
        MaskProbeError: matplotlib is missing, or the file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("maskprobe.bench") / "report.html").read_text(encoding="utf-8"))
    page = template.render(results=[_view(of.against_stock()) for of in results])
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise MaskProbeError(f"the report cannot be written to {path}: {error.strerror}") from error


def _view(results: Results) -> dict[str, Any]:
    """What the page shows of one file."""
    others = [setting for setting in results.settings() if setting != results.baseline]
    categories = list(dict.fromkeys(run.category for run in results.runs))
    return {
        "header": results.header,
        "baseline": results.baseline,
        "failed": results.failed,
        "pooled": [(name, _groups(_of(results, name))) for name in results.settings()],
        "settings": others,
        "categories": [
            (category, [summarize(_of(results, name, category)).pooled_ratio for name in others])
            for category in categories
        ],
        "plots": {name: _data_url(figure) for name, figure in _figures(results).items()},
    }


def _groups(runs: list[Run]) -> list[tuple[str, Any]]:
    groups = [("all", runs)]
    for label, looping in (("looping outputs", True), ("other outputs", False)):
        groups.append((label, [run for run in runs if run.looping is looping]))
    return [(label, summarize(group)) for label, group in groups if group]


def _of(results: Results, setting: str, category: str | None = None) -> list[Run]:
    return [run for run in results.runs if run.setting == setting and (category is None or run.category == category)]


def _data_url(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# --- plots ----------------------------------------------------------------------------------------------


def _figures(results: Results) -> dict[str, Any]:
    """The plots for which the results have data, by name."""
    plots: dict[str, Callable[[Any, Results], bool]] = {
        "speed": _plot_speed,
        "speed-by-category": _plot_categories,
        "acceptance-by-rows": _plot_rows,
        "cost-curve": _plot_costs,
        "reliability": _plot_reliability,
        "acceptance-by-depth": _plot_depths,
    }
    figures = {}
    for name, draw in plots.items():
        figure = new_figure(wide=name == "speed-by-category")
        if draw(figure.add_subplot(), results):
            figures[name] = figure
    return figures


def new_figure(*, wide: bool = False) -> Any:
    """An empty figure.

    Raises:
        MaskProbeError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MaskProbeError('plots need matplotlib; get it with: pip install "maskprobe[plot]"') from error
    return Figure(figsize=(9, 4.5) if wide else (6.5, 4.2), layout="constrained")


def _colour(results: Results, setting: str) -> str:
    return _THEIRS if setting in results.header["stock"] else _OURS


def _plot_speed(axes: Any, results: Results) -> bool:
    names = [name for name in results.settings() if name != results.baseline]
    speeds = {name: summarize(_of(results, name)).pooled_ratio for name in names}
    known = sorted((speed, name) for name, speed in speeds.items() if speed is not None)
    if not known:
        return False
    bars = axes.barh(
        [name for _, name in known], [speed for speed, _ in known], color=[_colour(results, name) for _, name in known]
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1.0, color="#444", linewidth=1)
    axes.set_xlim(0, 1.12 * known[-1][0])
    axes.set_xlabel(f"speed against {results.baseline}, pooled (grey: stock modes)")
    return True


def _plot_categories(axes: Any, results: Results) -> bool:
    names = [name for name in results.settings() if name != results.baseline]
    best = sorted(names, key=lambda name: -(summarize(_of(results, name)).pooled_ratio or 0.0))[:5]
    categories = list(dict.fromkeys(run.category for run in results.runs))
    if not any(run.speed_ratio is not None for run in results.runs) or not best:
        return False
    width = 0.8 / len(best)
    for i, name in enumerate(best):
        values = [summarize(_of(results, name, category)).pooled_ratio or 0.0 for category in categories]
        axes.bar([x + i * width for x in range(len(categories))], values, width, label=name)
    axes.axhline(1.0, color="#444", linewidth=1)
    axes.set_xticks([x + 0.4 - width / 2 for x in range(len(categories))], categories, rotation=35, ha="right")
    axes.set_ylabel(f"speed against {results.baseline}")
    axes.figure.legend(fontsize="small", loc="outside upper center", ncols=len(best))
    return True


def _plot_rows(axes: Any, results: Results) -> bool:
    for name in results.settings():
        of = summarize(_of(results, name))
        if of.acceptance_length is not None and of.rows_per_pass is not None:
            axes.scatter(of.rows_per_pass, of.acceptance_length, color=_colour(results, name), s=28)
            axes.annotate(
                name, (of.rows_per_pass, of.acceptance_length), xytext=(4, 3), textcoords="offset points", fontsize=7
            )
    _row_axis(axes)
    axes.margins(x=0.15)  # room for the names
    axes.set_xlabel("rows per pass")
    axes.set_ylabel("tokens per pass (acceptance length)")
    axes.grid(alpha=0.3)
    return True


def _row_axis(axes: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")


def _plot_costs(axes: Any, results: Results) -> bool:
    costs = {int(rows): ms for rows, ms in results.header["costs"].items()}
    if not costs:
        return False
    rows = sorted(costs)
    axes.plot(rows, [costs[n] / costs[1] for n in rows], marker="o", color=_OURS, label="measured")
    axes.plot(rows, rows, color="#999", linestyle=":", label="every row a plain pass")
    auto = _of(results, "auto")
    if auto and (chosen := summarize(auto).rows_per_pass) is not None:
        axes.axvline(chosen, color="#c0504d", linewidth=1, label=f"auto took {chosen:.2f} rows a pass")
    _row_axis(axes)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("rows of a pass")
    axes.set_ylabel("cost in plain passes")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return True


def _plot_reliability(axes: Any, results: Results) -> bool:
    drawn = False
    for name in results.settings():
        points = [(said, true) for n, said, true in reliability(_of(results, name)) if n >= 20]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
            drawn = True
    axes.plot([0, 1], [0, 1], color="#999", linestyle=":")
    axes.set_xlabel("expected acceptance of drafted tokens")
    axes.set_ylabel("accepted")
    if drawn:
        axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return drawn


def _plot_depths(axes: Any, results: Results) -> bool:
    drawn = False
    for name in results.settings():
        shares = acceptance_by_depth(_of(results, name), _DEPTHS)
        if any(shares):
            axes.plot(range(1, _DEPTHS + 1), shares, marker="o", markersize=4, label=name)
            drawn = True
    axes.set_xlabel("depth")
    axes.set_ylabel("share of passes that accepted so deep")
    if drawn:
        axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return drawn
