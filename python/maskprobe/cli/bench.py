"""``maskprobe bench``: measures settings against plain decoding and stock modes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from ..speculation import Speculation
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
@grouped
def paper(
    *,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="1 rows, 2 trees, 3 masks, 4 start vectors, 5 updates, 6 pruning, 7 sampling, 8 building. Repeatable."
        ),
    ] = None,
    figure: Annotated[int | None, typer.Option(min=2, max=2, help="2: hidden states of masks by layer.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the figure to this PNG file.")] = None,
    model: ModelOption = None,
    limit: LimitOption = 39,
    max_tokens: Annotated[int, typer.Option(min=3, help="Tokens per answer.")] = 128,
    measuring: Measuring,
) -> None:
    """Measure tables of the paper or its figure 2 again, beside what was published; tables share their runs."""
    from ..bench import layers, runs
    from ..bench import paper as tables_of_paper
    from ..bench.naive import NaiveProbe
    from ..bench.prompts import choose, read_prompts
    from ..bench.results import Results

    if bool(table) == (figure is not None):
        raise ValueError("ask for tables or for the figure: --table 1, or --figure 2")
    if plot is not None and figure is None:
        raise ValueError("--plot needs --figure 2")
    if measuring.out is not None and figure is not None:
        raise ValueError("--out needs --table; a figure is written with --plot")
    questions = tables_of_paper.questions(table or [])
    settings = tables_of_paper.settings(questions)
    path = resolve_model(model)
    cases = read_prompts(measuring.prompts)
    leaves = max([*settings.values(), Speculation()], key=lambda speculation: speculation.leaves())
    with MaskProbeLlama(path, speculation=leaves, **measuring.arguments()) as llm:
        chosen = choose(llm, cases, limit, measuring.max_prompt_tokens)
        if figure is not None:
            drifts = layers.measure(llm, [ids for _, ids in chosen], max_tokens=max_tokens, console=notes)
            layers.show(drifts, f"cosine to the true token's hidden state: {llm.description()}", tables())
            if plot is not None:
                layers.plot(drifts, plot)
            return
        naive = {tables_of_paper.NAIVE: lambda: NaiveProbe(llm)} if tables_of_paper.has_naive(questions) else {}
        temperature = questions[0].temperature
        plan = runs.Plan(cases=chosen, settings=settings, plain=True, max_tokens=max_tokens, temperature=temperature)
        header = runs.header(llm, path, plan, list(naive)) | {"temperature": temperature}
        results = Results(header, measuring.out)
        results.begin()
        try:
            runs.run(lambda: nullcontext(llm), plan, naive, results, notes)
        finally:  # an interrupted run shows what is finished
            if results.runs:
                for question in questions:
                    tables_of_paper.show(question, results, tables())


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
