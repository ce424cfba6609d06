"""What was read as events: whitespace at the joints goes, calls get their numbers."""

from __future__ import annotations

from collections.abc import Callable

from maskprobe.replies.events import CallArguments, CallBegins, CallEnds, Content, Event, Leftover, Reasoning
from maskprobe.replies.shapes import Call


class Output:
    """Gathers events. `trims`: whitespace between text and a call is neither's."""

    def __init__(self, trims: bool) -> None:
        self._events: list[Event] = []
        self._trims = trims
        self.calls = 0  # how many came out
        self._gap: list[str] = []  # whitespace that text may follow
        self._fresh = True  # nothing but whitespace since the reply's start, the last reasoning or the last call
        self._turned = False  # whitespace that comes now belongs to what was before
        self.said = False  # whether there is any content

    def drain(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def say(self, text: str) -> None:
        """A piece of the answer."""
        self._text(text, Content)
        self.said = self.said or not self._fresh

    def think(self, text: str) -> None:
        """A piece of reasoning."""
        self._text(text, Reasoning)

    def _text(self, text: str, kind: Callable[[str], Event]) -> None:
        if self._turned:
            text = text.lstrip()
            self._turned = not text
        body = text.rstrip()
        if body:
            self._events.append(kind("".join(self._gap) + body))
            self._gap.clear()
            self._fresh = False
        if len(body) < len(text):
            self._gap.append(text[len(body) :])

    def turn(self) -> None:
        """Reasoning begins or ends: whitespace round it belongs to its tags."""
        self._gap.clear()
        self._fresh = self._turned = True

    def call(self, call: Call) -> None:
        """A whole call."""
        index = self.calls
        self.calls += 1
        if not self._trims and not self._fresh:
            self._events += [Content("".join(self._gap))] if self._gap else []
        self._gap.clear()
        self._fresh = True
        self._turned = self._trims and not self.said
        self._events += [
            CallBegins(index, call.name, call.id),
            CallArguments(index, call.arguments),
            CallEnds(index),
        ]

    def end(self, leftover: str, kind: Callable[[str], Event]) -> None:
        """The reply's end: `kind` is what text was being written."""
        if self._gap and not (self._fresh and self.calls):
            self._events.append(kind("".join(self._gap)))
        if leftover.strip():
            self._events.append(Leftover(leftover))
