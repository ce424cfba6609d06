"""Standard input and output, as terminals, pipes and files have them: text goes out as it comes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BROKEN_PIPE = 141  # what shells report for a program that SIGPIPE has ended


def prepare() -> None:
    """Gives the process all three streams; what the output's encoding lacks is replaced."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def forget_output() -> None:
    """Lets what is left to write go nowhere: Python flushes once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def pipes() -> Iterator[None]:
    """For commands that stand in pipes: what is no text is replaced, and a reader that goes away ends them quietly."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Texts of other systems begin with a mark and end their lines otherwise.
        is_unicode = sys.stdin.encoding.lower().replace("-", "") == "utf8"
        sys.stdin.reconfigure(encoding="utf-8-sig" if is_unicode else None, errors="replace", newline=None)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
        sys.exit(BROKEN_PIPE)


def write(text: str) -> None:
    """Text of the model, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
