"""``maskprobe models`` and ``maskprobe download``: which models there are, and having one on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .. import hub
from ..hub import catalog
from ..llamacpp.preflight import check_file
from .app import app
from .options import tables


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the catalogue, and the models in the hub's cache."""
    cached = hub.cached_models()
    if as_json:
        in_cache = [asdict(model) | {"name": model.name, "path": str(model.path)} for model in cached]
        print(json.dumps({"catalogue": [asdict(entry) for entry in catalog.entries()], "cache": in_cache}, indent=2))
        return
    console = tables()
    console.print(_catalogue(cached))
    console.print(_cache(cached) if cached else "No models in the hub's cache; maskprobe download NAME gets one.")


@app.command()
def download(
    model: Annotated[str, typer.Argument(help="A catalogue name or user/repo:QUANT.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Look into the cache alone.")] = False,
) -> None:
    """Have a model on this machine and print its path."""
    path = hub.resolve_model(model, revision=revision, local_files_only=local_files_only)
    check_file(path)
    print(path)


def _catalogue(cached: list[hub.CachedModel]) -> Table:
    table = Table(title="Catalogue", title_justify="left")
    table.add_column("name", style="bold", no_wrap=True)
    for column in ("parameters", "GB"):
        table.add_column(column, justify="right")
    for column in ("quant", "architecture", "drafts", "licence", "repository"):
        table.add_column(column, overflow="fold")
    here = {(model.repo, model.quant) for model in cached}
    for entry in catalog.entries():
        repo = escape("comes with maskprobe[demo]") if entry.repo is None else entry.repo
        table.add_row(
            entry.name,
            f"{entry.parameters:g}B",
            "" if entry.gigabytes is None else f"{entry.gigabytes:.2f}",
            entry.quant,
            entry.architecture,
            entry.drafts,
            entry.licence,
            f"{repo} (in the cache)" if (entry.repo, entry.quant) in here else repo,
        )
    return table


def _cache(cached: list[hub.CachedModel]) -> Table:
    table = Table(title="In the hub's cache", title_justify="left")
    table.add_column("name", style="bold", overflow="fold")
    table.add_column("GB", justify="right")
    table.add_column("file", overflow="fold")
    for model in cached:
        table.add_row(model.name, f"{model.bytes / 1e9:.2f}", model.path.name)
    return table
