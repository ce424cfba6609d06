"""The typer application that commands add themselves to."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Local LLMs in fewer forward passes, with the same output.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    pass
