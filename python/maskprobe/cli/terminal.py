"""Standard input and output of commands that stand in pipes: text goes out as it comes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BROKEN_PIPE = 141  # what shells report for a program that SIGPIPE has ended


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
