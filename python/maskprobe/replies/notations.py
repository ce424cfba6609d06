"""How models write reasoning and calls of tools, as data: what the parser reads and a grammar can be made from.

A reply's calls are written as `begin`, then for every call `open` + the call in its shape + `close`, `between` two
calls `between`, and `end` after the last one. Texts are as the models' templates write them; a reader takes any
whitespace where they have some, and none. Which notation which models use stands in table.py; shapes.py reads calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class JsonObject:
    """One object: {"name": NAME, "arguments": {...}}; each key's first spelling is the written one, all are read."""

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: str | None = None  # the key of the call's id


@dataclass(frozen=True)
class JsonPair:
    """One object with one key: {NAME: {...}}."""


@dataclass(frozen=True)
class NamedJson:
    """NAME, `then`, and the arguments as a JSON object."""

    then: str
    id: str | None = None  # what stands between the name and an id before `then`, for models that write ids
    prefix: str = ""  # before the name, not part of it; models leave it out at times
    numbered: bool = False  # NAME:0, NAME:1, ...; prefix, name and number together are the call's id


Kind = Literal["schema", "text", "json"]  # what a value's type follows from: the tool's schema, or its own markup


@dataclass(frozen=True)
class Tagged:
    """`name`[0] NAME `name`[1], then per argument `key` KEY, one of `values` VALUE `value_end`, and `end` at last.

    A value is bare text: how it becomes JSON is its kind, which the text between key and value tells.
    """

    name: tuple[str, str]
    key: str
    values: tuple[tuple[str, Kind], ...]
    value_end: str  # with a line break before it, values stand on lines of their own
    end: str
    alone: str | None = None  # models write it in place of name[1] and all that follows if there are no arguments
    escaped: bool = False  # keys are written with HTML's entities
    cdata: bool = False  # values may stand in <![CDATA[ ]]>


@dataclass(frozen=True)
class Pythonic:
    """NAME(KEY=VALUE, ...) with Python's literals."""


@dataclass(frozen=True)
class Braced:
    """NAME{KEY:VALUE,...}: keys are bare, strings stand between two `quote` and escape nothing, the rest is JSON."""

    quote: str


Shape = JsonObject | JsonPair | NamedJson | Tagged | Pythonic | Braced


@dataclass(frozen=True)
class Calls:
    """How calls are written (see above). In `name`[1] of a Tagged, {n} stands for the call's number, from 1.

    A call is whole where its shape ends: models forget what should follow at times.
    """

    shape: Shape
    begin: str = ""
    open: str = ""
    close: str = ""
    between: str = ""
    end: str = ""
    unbegun: bool = False  # models leave `begin` out at times
    unopened: bool = False  # models leave `open` out at times, where there is no `begin`
    bare: bool = False  # nothing marks a call: it counts at a reply's start only, and for a tool that was offered

    @property
    def start(self) -> str:
        """The first word of every call, as far as it is the same for all; empty if a name comes first."""
        text = self.open or (self.shape.name[0] if isinstance(self.shape, Tagged) else "")
        return text.split()[0] if text.strip() else "{" if isinstance(self.shape, JsonObject | JsonPair) else ""

    @property
    def triggers(self) -> tuple[str, ...]:
        """The first words of what calls may begin with; none if they are bare."""
        parts = [self.begin, self.open, self.shape.name[0] if isinstance(self.shape, Tagged) else ""]
        words = [part.split()[0] for part in parts if part.strip()]
        return () if self.bare else tuple(words[: 2 if self.unbegun or self.unopened else 1])


@dataclass(frozen=True)
class Tags:
    """What stands before and after reasoning."""

    begin: str
    end: str
