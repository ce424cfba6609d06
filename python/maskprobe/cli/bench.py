"""``maskprobe bench``: measures settings against plain decoding and stock modes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from .app import app
from .groups import grouped
from .loading import Loading
from .options import SPECULATION_HELP, ModelOption, notes, tables

# One of each of SpecBench's categories; then all processes start anew.
_PROMPTS_PER_ROUND = 13

bench = typer.Typer(help="Measure speed, tokens per pass and equality; show and compare results.", no_args_is_help=True)
app.add_typer(bench, name="bench")


LimitOption = Annotated[int | None, typer.Option(min=1, help="Use so many prompts, evenly from all categories.")]


@dataclass(kw_only=True)
class Measuring(Loading):
    """What is measured, by what, and where results go."""

    prompts: Annotated[Path, typer.Option(help="Prompts as JSON lines: question_id, category, turns (SpecBench).")]
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Leave out longer prompts.")] = 800
    out: Annotated[
        Path | None, typer.Option(help="Write results here as JSON lines; an interrupted run is gone on with.")
    ] = None


@bench.command()
@grouped
def suite(
    *,
    model: ModelOption = None,
    speculation: Annotated[
        list[str] | None, typer.Option(help="A preset (auto, budget-10, paper-30, ...) or: " + SPECULATION_HELP)
    ] = None,
    presets: Annotated[bool, typer.Option("--presets", help="Run all presets.")] = False,
    plain: Annotated[bool, typer.Option(help="Decode plainly too, for ratios and equality.")] = True,
    limit: LimitOption = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens per answer.")] = 128,
    measuring: Measuring,
    stock: Annotated[list[str] | None, typer.Option(help="A stock mode to run beside, or all. Repeatable.")] = None,
    llama_server: Annotated[Path | None, typer.Option(help="The llama-server to run; default: on PATH.")] = None,
    draft_model: Annotated[str | None, typer.Option(help="Run llama-server with this draft model beside too.")] = None,
) -> None:
    """Measure against plain decoding and stock modes, interleaved prompt by prompt."""
    from ..bench import opponents, runs
    from ..bench.prompts import choose, read_prompts
    from ..bench.results import Results
    from ..bench.tables import show

    names = [*(speculation or ([] if presets else ["auto"])), *(runs.PRESETS if presets else ())]
    settings = {name: runs.PRESETS.get(name) or parse_speculation(name) for name in names}
    path = resolve_model(model)
    cases = read_prompts(measuring.prompts)
    load = partial(MaskProbeLlama, path, **measuring.arguments())
    with load() as llm:
        chosen = choose(llm, cases, limit, measuring.max_prompt_tokens)
        texts = {tuple(ids): llm.detokenize(ids, special=True) for _, ids in chosen}
        rivals = opponents.opponents(
            [*(stock or []), *([opponents.DRAFT_MODEL] if draft_model else [])],
            llama_server,
            path,
            lambda ids: texts[tuple(ids)],
            draft_model=resolve_model(draft_model) if draft_model else None,
            n_ctx=measuring.n_ctx,
            n_threads=llm.n_threads(),
        )
        plan = runs.Plan(cases=chosen, settings=settings, plain=plain, max_tokens=max_tokens)
        results = Results(runs.header(llm, path, plan, list(rivals)), measuring.out)
        results.begin()
        ready = [llm]
        if rivals:  # beside them the order of starts is drawn, ours too
            ready.pop().close()
        try:
            runs.run(
                lambda: ready.pop() if ready else load(), plan, rivals, results, notes, per_round=_PROMPTS_PER_ROUND
            )
        finally:  # an interrupted run shows what is finished
            if results.runs:
                show(results, tables())


@bench.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="Results of maskprobe bench suite.")],
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots as PNG files into this folder.")] = None,
) -> None:
    """Show results as tables, as one HTML page and as plots."""
    from ..bench.results import load
    from ..bench.tables import show

    loaded = [load(path) for path in files]
    if html is None and plots is None:
        for results in loaded:
            show(results, tables())
        return
    from ..bench.report import write_html, write_plots

    if html is not None:
        write_html(loaded, html)
    if plots is not None:
        write_plots(loaded, plots)
