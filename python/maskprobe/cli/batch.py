"""``maskprobe batch``: a file of requests, several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from .app import app
from .groups import grouped
from .loading import Adapted
from .options import ModelOption, SpeculationOption, note, notes


@app.command()
@grouped
def batch(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests: OpenAI's batch lines.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Answers; those that are there stay.")],
    *,
    model: ModelOption = None,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Requests that are answered at once.")] = 4,
    speculation: SpeculationOption = "",
    loading: Adapted,
) -> None:
    """Answer a file of requests; run it again to go on where it was ended."""
    try:
        from ..server import Batch
    except ImportError as error:
        raise ValueError(f'batches need {error.name}: pip install "maskprobe[server]"') from error

    settings = parse_speculation(speculation)
    requests = Batch(source, target)
    path = resolve_model(model)
    if not len(requests):
        note(f"all {requests.n_done} requests are answered in {target}")
        return
    names = [path.stem, path.name] + ([model] if model else [])
    with MaskProbeLlama(path, speculation=settings, n_parallel=parallel, **loading.arguments()) as llm:
        ended = list(track(requests.run(llm, names), "requests", len(requests), console=notes, transient=True))
    before = f", {requests.n_done} before" if requests.n_done else ""
    note(f"{sum(ended)} of {len(ended)} requests answered{before}; {len(ended) - sum(ended)} are errors in {target}")
