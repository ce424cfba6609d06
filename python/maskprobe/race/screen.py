"""What a race looks like: two panes with the answers so far, drafted tokens shaded, and a table at the end."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .course import Answer, Race

DRAFTED = "black on color(157)"  # pale green, with letters of its own: on light screens and dark ones
_NARROW = 80  # columns; below, panes stand one above the other
_LINES = 14  # of text in a pane; fewer where the screen has less room


class Panes:
    """Both answers side by side. While ours runs, stock's runs beside it once more as it was recorded.

    Args:
        race: may fill meanwhile.
        lines: of text in a pane, None = as many as fit.
    """

    def __init__(self, race: Race, lines: int | None = None) -> None:
        self.race = race
        self._lines = lines
        self._ours_since: float | None = None  # when our first token was there

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.max_width < _NARROW
        lines = self._lines or max(3, min(_LINES, (options.size.height - 8) // (2 if narrow else 1)))
        width = options.max_width if narrow else options.max_width // 2
        panes = [
            _pane(console, "stock llama.cpp", self._stock(), width, lines),
            _pane(console, "maskprobe", self.race.ours, width, lines),
        ]
        if narrow:
            yield from panes
        else:
            grid = Table.grid(expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(*panes)
            yield grid

    def catch_up_seconds(self) -> float:
        """How long stock's recording goes on now."""
        if self._ours_since is None or not self.race.stock.steps:
            return 0.0
        return max(0.0, self.race.stock.steps[-1].ms / 1e3 - (time.perf_counter() - self._ours_since))

    def _stock(self) -> Answer:
        if not self.race.ours.steps:
            return self.race.stock
        if self._ours_since is None:
            self._ours_since = time.perf_counter()
        return self.race.stock.until(1e3 * (time.perf_counter() - self._ours_since))


def _pane(console: Console, name: str, answer: Answer, width: int, lines: int) -> Panel:
    text = Text()
    for step in list(answer.steps):
        text.append(step.text, DRAFTED if step.drafted else None)
    shown = Text("\n").join(text.wrap(console, max(1, width - 4))[-lines:])
    figures = f"{answer.tokens_per_second:.1f} tokens/s, {answer.tokens_per_pass:.2f} tokens a pass"
    return Panel(shown, title=name, subtitle=figures, height=lines + 2, border_style="bold" if answer.done else "dim")


def verdict(race: Race) -> str:
    """A race in a line."""
    at = race.parts_at
    equal = "equal text" if at is None else f"texts part at token {at}, where two logits are {race.gap:.2g} apart"
    return f"{race.name}: {race.ratio:.2f} x stock llama.cpp, {race.ours.tokens_per_pass:.2f} tokens a pass, {equal}"


def table(races: Sequence[Race]) -> Table:
    """All races."""
    result = Table()
    result.add_column("prompt")
    for column in ("tokens", "stock, tokens/s", "maskprobe, tokens/s", "tokens a pass", "speed"):
        result.add_column(column, justify="right")
    result.add_column("text")
    for race in races:
        result.add_row(
            race.name,
            str(len(race.ours.steps)),
            f"{race.stock.tokens_per_second:.1f}",
            f"{race.ours.tokens_per_second:.1f}",
            f"{race.ours.tokens_per_pass:.2f}",
            f"{race.ratio:.2f} x",
            "equal" if race.parts_at is None else f"parts at {race.parts_at}",
        )
    return result


def picture(races: Sequence[Race], title: str) -> str:
    """The race with the largest lead and the table of all, as SVG."""
    console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    best = max(races, key=lambda race: race.ratio)
    half = best.ours.steps[-1].ms  # as it stood when ours was done
    moment = Race(best.name, best.stock.until(half), best.ours)
    console.print(Group(_Still(moment), table(races)))
    svg = console.export_svg(title=title)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # rich's fonts would come from elsewhere


class _Still(Panes):
    """Panes in which nothing runs."""

    def __init__(self, race: Race) -> None:
        super().__init__(race, _LINES)

    def _stock(self) -> Answer:
        return self.race.stock
