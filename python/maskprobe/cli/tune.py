"""``maskprobe tune``: the once-per-model work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..tuning import own_texts, steps
from .app import app
from .groups import grouped
from .loading import Loading
from .options import ModelArgument, tables


@app.command()
@grouped
def tune(
    *,
    model: ModelArgument = None,
    adjacency: Annotated[bool, typer.Option(help="Make the adjacency table too.")] = True,
    text_tokens: Annotated[
        int, typer.Option(min=0, help="Have the model write so many tokens of text, whose phrases drafts then know.")
    ] = own_texts.TOKENS,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Do the least of each step, without the adjacency table: a rough first look."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this PNG file.")] = None,
    loading: Loading,
) -> None:
    """Do the once-per-model work: cost curve, adjacency table, texts of its own, probe; show what to expect."""
    effort = steps.QUICK if quick else steps.Effort(adjacency=adjacency, text_tokens=text_tokens)
    with MaskProbeLlama(resolve_model(model), **loading.arguments()) as llm:
        steps.tune(llm, tables(), effort, plot=plot)
