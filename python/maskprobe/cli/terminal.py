"""What commands that answer share: a model that tells its warnings in a line, and text that goes out as it comes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..llama import MaskProbeLlama
from .options import notes

BROKEN_PIPE = 141  # what shells report for a program that SIGPIPE has ended


@contextmanager
def loaded(path: Path, **options: Any) -> Iterator[MaskProbeLlama]:
    """A model that is closed at exit; warnings of loading become lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        llm = MaskProbeLlama(path, **options)
    with llm:
        for warning in caught:
            note(f"maskprobe: {warning.message}", style="yellow")
        yield llm


@contextmanager
def output() -> Iterator[None]:
    """For commands that write to a pipe: a reader that goes away ends the program, quietly."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character gets a question mark
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


def write(text: str) -> None:
    """Text of the model, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(line: str, style: str = "dim") -> None:
    """A line that is not the model's."""
    notes.print(line, style=style, soft_wrap=True, markup=False)
