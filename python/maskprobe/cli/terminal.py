"""What commands that answer share: a model that tells its warnings in a line, and text that goes out as it comes."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from .options import notes

BROKEN_PIPE = 141  # what shells report for a program that SIGPIPE has ended


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Warnings of the package become lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield
    for warning in caught:
        warn(str(warning.message))


@contextmanager
def loaded(name: str | None, **options: Any) -> Iterator[MaskProbeLlama]:
    """The model of a name, closed at exit."""
    with warnings_as_notes():
        llm = MaskProbeLlama(resolve_model(name), **options)
    with llm:
        yield llm


@contextmanager
def pipes() -> Iterator[None]:
    """For commands that stand in pipes: what is no text is replaced, and a reader that goes away ends them quietly."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
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


def warn(line: str) -> None:
    """A line that says what is not as it should be."""
    note(f"maskprobe: {line}", style="yellow")
