"""``maskprobe race``: stock llama.cpp and maskprobe answer the same prompts, side by side."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from ..hub import resolve_model
from ..llama import MaskProbeLlama
from ..notation import parse_speculation
from ..race import course, screen
from ..race.course import Race
from ..race.prompts import PROMPTS
from ..race.screen import Panes
from ..race.stock import Stock
from .app import app
from .groups import grouped
from .loading import Loading
from .options import ModelOption, SpeculationOption, tables
from .terminal import pipes, write

_FRAMES = 8  # a second


@app.command()
@grouped
def race(
    *,
    prompt: Annotated[list[str] | None, typer.Argument(help="Prompts; default: five of different kinds.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Of the built-in prompts, this one: chat, code, json, summary or tool.")
    ] = None,
    model: ModelOption = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="At most so many tokens an answer.")] = 160,
    speculation: SpeculationOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, at the end.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write a picture of the race here.")] = None,
    loading: Loading,
) -> None:
    """Watch stock llama.cpp and maskprobe answer the same prompts, each with the machine for itself."""
    asked = _asked(prompt or [], kind or [])
    settings = parse_speculation(speculation)
    console = tables()
    with pipes(), ExitStack() as stack:
        llm = stack.enter_context(MaskProbeLlama(resolve_model(model), speculation=settings, **loading.arguments()))
        stock = stack.enter_context(Stock(llm))
        watch = _Watch(console) if sys.stdout.isatty() and not as_json else None
        races = []
        for done in course.run(llm, stock, _prompts(llm, asked), max_tokens, watch.begin if watch else lambda *_: None):
            races.append(done)
            if watch is not None:
                watch.end()
            if not as_json:
                console.print(screen.verdict(done), highlight=False, markup=False)
        if as_json:
            write(json.dumps({"model": llm.model_path.name, "races": [each.as_dict() for each in races]}) + "\n")
        else:
            console.print(screen.table(races))
        if svg is not None:
            svg.write_text(screen.picture(races, f"maskprobe race, {llm.description()}, {llm.n_threads()} threads"))


def _asked(texts: list[str], kinds: list[str]) -> dict[str, str]:
    for kind in kinds:
        if kind not in PROMPTS:
            raise ValueError(f"there is no prompt {kind!r}; take one of {', '.join(PROMPTS)}")
    chosen = {kind: PROMPTS[kind] for kind in kinds} | {f"prompt {i + 1}": text for i, text in enumerate(texts)}
    return chosen or PROMPTS


def _prompts(llm: MaskProbeLlama, asked: dict[str, str]) -> list[tuple[str, list[int]]]:
    if not llm.has_chat_template():
        return [(name, llm.tokenize(text)) for name, text in asked.items()]
    return [(name, llm.apply_chat_template([{"role": "user", "content": text}])) for name, text in asked.items()]


class _Watch:
    """The panes of the race that runs, drawn by a thread of their own."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, race: Race) -> None:
        self._panes = Panes(race)
        self._live = Live(self._panes, console=self._console, refresh_per_second=_FRAMES)
        self._live.start()

    def end(self) -> None:
        """Waits until the slower answer has been shown to its end."""
        time.sleep(self._panes.catch_up_seconds())
        self._live.stop()
