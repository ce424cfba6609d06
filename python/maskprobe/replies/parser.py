"""Reads one reply: text comes in as it is written, events go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskprobe.replies.events import Content, Event

if TYPE_CHECKING:
    from maskprobe.replies.formats import Format


class Parser:
    """Reads one reply in a format: feed it the text in any pieces, then finish it. No text raises."""

    def __init__(self, format: Format, tools: Sequence[Mapping[str, Any]], prompt_end: str) -> None:
        self._format = format

    def feed(self, text: str) -> list[Event]:
        """The events that this further piece of the reply completes."""
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        """The events left at the reply's end."""
        return []
