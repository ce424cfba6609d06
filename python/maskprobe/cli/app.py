"""The typer application that commands add themselves to."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    help="Local LLMs in fewer forward passes, with the same output.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_versions(asked: bool) -> None:
    if asked:
        typer.echo(f"maskprobe {version('maskprobe')}, llama-cpp-python {version('llama-cpp-python')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_versions, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    pass
