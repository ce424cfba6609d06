"""What commands share: options that name models and settings, and the consoles."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A .gguf file, a catalogue name or user/repo:QUANT; default: smollm2."),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(help="A .gguf file, a catalogue name or user/repo:QUANT; default: smollm2."),
]
SPECULATION_HELP = (
    'Settings such as "budget=10", "masks=2,tree=15x4,probe=prompt-mean,update=0.1", "tree=dynamic,block=60" or '
    '"paper-30".'
)
SpeculationOption = Annotated[str, typer.Option(help=SPECULATION_HELP)]

# Everything that is not the result goes here, so that a pipe gets the result alone.
notes = Console(stderr=True, highlight=False)


def note(line: str, style: str = "dim") -> None:
    """A line that is not the model's."""
    notes.print(line, style=style, soft_wrap=True, markup=False)


def warn(line: str) -> None:
    """A line that says what is not as it should be."""
    note(f"maskprobe: {line}", style="yellow")


def tables() -> Console:
    """A console for tables; in a pipe there is no width to fit."""
    return Console() if sys.stdout.isatty() else Console(width=160)
