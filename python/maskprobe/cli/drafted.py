"""Answers as they come, with what was drafted shaded, if that is asked for and the terminal has colours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..race.screen import DRAFTED
from ..results import Chunk
from .terminal import write

ShowDraftsOption = Annotated[
    bool, typer.Option("--show-drafts", help="Shade tokens that were drafted, in a terminal with colours.")
]


def show_chunks(*, shaded: bool) -> Callable[[Chunk], None]:
    """What puts the chunks of an answer out, one by one."""
    if not shaded or not sys.stdout.isatty():
        return lambda chunk: write(chunk.text)
    console = Console(highlight=False, soft_wrap=True, tab_size=1)

    def show(chunk: Chunk) -> None:
        console.print(Text(chunk.text, DRAFTED if chunk.from_draft else "", tab_size=1), end="")

    return show
