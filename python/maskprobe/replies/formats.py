"""How models write reasoning and calls of tools, as data: what the parser reads and a grammar can be made from.

Which formats there are stands in table.py; how text in them is read, in parser.py and shapes.py.

A reply's calls are written as `begin`, then for every call `open` + the call in its shape + `close`, `between` two
calls `between`, and `end` after the last one. Texts are as the models' templates write them; a reader takes any
whitespace where they have some, and none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from maskprobe.replies.parser import Parser


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
    value_end: str
    end: str = ""
    alone: str | None = None  # written in place of name[1] and all that follows where there are no arguments


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
    """How calls are written (see above). `bare`: nothing marks them, so they count at a reply's start only."""

    shape: Shape
    begin: str = ""
    open: str = ""
    close: str = ""
    between: str = ""
    end: str = ""
    optional: tuple[str, ...] = ()  # texts at the start of `begin` or `open` that models leave out at times
    bare: bool = False

    @property
    def start(self) -> str:
        """What the first call of a reply begins with, as written up to its name or first brace."""
        return self.begin + self.open + (self.shape.name[0] if isinstance(self.shape, Tagged) else "")


@dataclass(frozen=True)
class Tags:
    """What stands before and after reasoning."""

    begin: str
    end: str


@dataclass(frozen=True)
class Format:
    """How the models of one family write. `calls`: the first one is written, the others are read too."""

    name: str
    calls: tuple[Calls, ...] = ()
    reasoning: Tags | None = Tags("<think>", "</think>")
    frames: tuple[str, ...] = ()  # what stands round answers and is no part of them
    channels: bool = False  # gpt-oss: every message has a header that says what it is
    trims: bool = True  # whitespace between text and a call belongs to neither

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts with which calls begin, none for a format without calls."""
        texts = [call.start.strip() for call in self.calls]
        return tuple(dict.fromkeys(text for text in texts if text))

    def parser(self, tools: Sequence[Mapping[str, Any]] | None, prompt_end: str = "") -> Parser:
        """A parser of one reply.

        tools: those the model was offered, as OpenAI's API has them; with none, calls are content.
        prompt_end: the end of the rendered prompt: it may have opened reasoning, or an answer's channel.
        """
        return Parser(self, tools or (), prompt_end)
