"""``maskprobe tune``: the once-per-model work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from .app import app
from .options import ContextOption, GpuOption, ModelArgument, RpcOption, ThreadsOption, tables


@app.command()
def tune(
    model: ModelArgument = None,
    adjacency: Annotated[bool, typer.Option(help="Make the adjacency table too (the longest step).")] = True,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this PNG file.")] = None,
    n_ctx: ContextOption = 4096,
    n_threads: ThreadsOption = None,
    n_gpu_layers: GpuOption = 0,
    rpc: RpcOption = None,
) -> None:
    """Do the once-per-model work: cost curve, probe, adjacency table; show what to expect."""
    from ..tune import tune as run

    path = resolve_model(model)
    with MaskProbeLlama(path, n_ctx=n_ctx, n_threads=n_threads, n_gpu_layers=n_gpu_layers, rpc_servers=rpc) as llm:
        run(llm, tables(), adjacency=adjacency, plot=plot)
