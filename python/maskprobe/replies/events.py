"""What comes out of a model's text while it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class CallBegins:
    """A call of a tool; id: the one that the model itself wrote, None if its format has none."""

    index: int  # of the call in the reply, from 0
    name: str
    id: str | None = None


@dataclass(frozen=True)
class CallArguments:
    """A piece of a call's arguments: JSON, whole once the call has ended."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnds:
    """The call's end was written: its arguments are whole."""

    index: int


@dataclass(frozen=True)
class Leftover:
    """Text that is neither answer nor reasoning nor a whole call: one that the reply's end cut off.

    It comes last. Where a limit cut the reply it is of no use; a model that stopped by itself may have meant it as
    text.
    """

    text: str


Event = Reasoning | Content | CallBegins | CallArguments | CallEnds | Leftover
