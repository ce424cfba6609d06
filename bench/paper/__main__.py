"""Measures tables of the paper or its figure 2 again.

python -m bench.paper --prompts bench/prompts.jsonl --table 1 --table 2
python -m bench.paper --prompts bench/prompts.jsonl --figure 2 --plot figure-2.png
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.bench import runs
from maskprobe.bench.prompts import choose, read_prompts
from maskprobe.bench.results import Results
from maskprobe.cli import main
from maskprobe.cli.bench import LimitOption, Measuring
from maskprobe.cli.groups import grouped
from maskprobe.cli.options import ModelOption, notes
from maskprobe.cli.options import tables as console
from maskprobe.hub import resolve_model

from . import layers, tables
from .naive import NaiveProbe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
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
    if bool(table) == (figure is not None):
        raise ValueError("ask for tables or for the figure: --table 1, or --figure 2")
    if plot is not None and figure is None:
        raise ValueError("--plot needs --figure 2")
    if measuring.out is not None and figure is not None:
        raise ValueError("--out needs --table; a figure is written with --plot")
    questions = tables.questions(table or [])
    settings = tables.settings(questions)
    path = resolve_model(model)
    cases = read_prompts(measuring.prompts)
    leaves = max([*settings.values(), Speculation()], key=lambda speculation: speculation.leaves())
    with MaskProbeLlama(path, speculation=leaves, **measuring.arguments()) as llm:
        chosen = choose(llm, cases, limit, measuring.max_prompt_tokens)
        if figure is not None:
            drifts = layers.measure(llm, [ids for _, ids in chosen], max_tokens=max_tokens, console=notes)
            layers.show(drifts, f"cosine to the true token's hidden state: {llm.description()}", console())
            if plot is not None:
                layers.plot(drifts, plot)
            return
        naive = {tables.NAIVE: lambda: NaiveProbe(llm)} if tables.has_naive(questions) else {}
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
                    tables.show(question, results, console())


if __name__ == "__main__":
    main(app)
