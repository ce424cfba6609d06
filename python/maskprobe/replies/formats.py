"""The format of one family of models: how its replies are written, and a parser of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskprobe.replies.notations import Calls, Tags
from maskprobe.replies.parser import Parser


@dataclass(frozen=True)
class Format:
    """How the models of one family write. `calls`: the first one is written, the others are read too."""

    name: str
    calls: tuple[Calls, ...] = ()
    reasoning: tuple[Tags, ...] = (Tags("<think>", "</think>"),)  # the first are written, the others are read too
    frames: tuple[str, ...] = ()  # what stands round answers and is no part of them
    channels: bool = False  # gpt-oss: every message has a header that says what it is
    trims: bool = True  # whitespace between text and a call belongs to neither

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts with which calls begin, up to their first whitespace; none for a format without calls.

        Bare calls have none that other answers could not begin with too.
        """
        return tuple(dict.fromkeys(text for calls in self.calls for text in calls.triggers))

    def parser(self, tools: Sequence[Mapping[str, Any]] | None, prompt_end: str = "") -> Parser:
        """A parser of one reply.

        tools: those the model was offered, as OpenAI's API has them; with none, calls are content.
        prompt_end: the end of the rendered prompt: it may have opened reasoning, or a channel, or begun either.
        """
        return Parser(self, tools or (), prompt_end)
