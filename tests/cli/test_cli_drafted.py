"""Drafted tokens are shaded in a terminal, and nowhere else; the text is the same."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from maskprobe.cli.drafted import show_chunks
from maskprobe.results import Chunk

CHUNKS = [Chunk("One,\ttwo", [1]), Chunk(" [red]three\n", [2], from_draft=True), Chunk("  four 😀", [3])]
SHADE = "\x1b[30;48;5;157m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, output: io.StringIO, *, shaded: bool = True) -> str:
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("TERM", "xterm-256color")
    show = show_chunks(shaded=shaded)
    for chunk in CHUNKS:
        show(chunk)
    return output.getvalue()


def test_a_terminal_shows_what_was_drafted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = shown(monkeypatch, Terminal())
    assert re.findall(r"\x1b\[30;48;5;157m([^\x1b]*)\x1b\[0m", text) == [" [red]three"]
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).split() == "".join(chunk.text for chunk in CHUNKS).split()


@pytest.mark.parametrize("where", ["pipe", "no colours", "not asked for"])
def test_elsewhere_the_text_is_as_it_was(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "no colours":
        monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO() if where == "pipe" else Terminal()
    text = shown(monkeypatch, output, shaded=where != "not asked for")
    assert "\x1b" not in text
    assert text.split() == "".join(chunk.text for chunk in CHUNKS).split()


def test_generate_shades(model_path: Callable[[str], Path]) -> None:
    command = ["-m", "maskprobe.cli", "generate", "--raw", "1 2 3 4 1 2 3 4 1 2 3", "-m", str(model_path("Q4_0"))]
    options = [
        "--n-ctx",
        "512",
        "--speculation",
        "budget=8",
        "--temperature",
        "0",
        "--max-tokens",
        "24",
        "--show-drafts",
    ]
    child = pexpect.spawn(
        sys.executable,
        command + options,
        encoding="utf-8",
        timeout=120,
        env={"TERM": "xterm-256color"} | _environment(),
    )
    text = child.read()
    child.wait()
    assert child.exitstatus == 0, text
    assert SHADE in text


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
