"""Control tokens in chats: a template's are parsed, those that somebody has written into a message are text.

A template renders messages into one text, in which both look the same. Here messages are rendered once more with
stand-ins for the characters that spell control tokens: what still is one is the template's. Only where that makes a
difference do stand-ins stay in the prompt, until it is tokenized. Knows texts and tokens; leaves rendering to others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from ..llamacpp.installed import llama_cpp
from ..llamacpp.vocabulary import Vocabulary

T = TypeVar("T")

_SPACE = " \t\n\v\f\r"
_LAST_RARE = 0x2A6D6  # stand-ins are taken downwards from here: ideographs, which repr() and tojson leave as they are


class AsText(NamedTuple, Generic[T]):
    """What a prompt is made of, and the characters that stand-ins in it stand for; none if it is as it was."""

    values: T
    characters: dict[int, str]


class _Control(NamedTuple):
    text: str
    token: int
    eats_before: bool  # white space
    eats_behind: bool


class ControlTokens:
    """The control tokens of a vocabulary."""

    def __init__(self, vocab: Vocabulary) -> None:
        self._vocab = vocab

    def as_text(self, values: T, render: Callable[[T], str]) -> AsText[T]:
        """Values whose prompt has no control tokens but the template's, changed as little as that takes.

        Args:
            values: what the prompt is made of, messages say: texts, lists, dictionaries, in each other.
            render: makes the text of the prompt, of these values or changed ones.
        """
        used = set("".join(_strings(values)))
        if not used & self._marks:
            return AsText(values, {})
        codes = (code for code in range(_LAST_RARE, 0, -1) if chr(code) not in used)
        characters = dict(zip(codes, sorted(self._marks), strict=False))
        stand_ins = {ord(character): code for code, character in characters.items()}

        def hidden(text: str) -> str:
            return text.translate(stand_ins)

        def hidden_where_spelled(text: str) -> str:
            for control in self._longest_first:
                text = text.replace(control.text, hidden(control.text))
            return text

        strict: T = _changed(values, hidden)
        wanted = self._found(render(strict))
        if self._found(render(values)) == wanted:
            return AsText(values, {})
        # Templates look at what messages hold, a block of thoughts for instance: the fewer stand-ins the better.
        mild: T = _changed(values, hidden_where_spelled)
        return AsText(mild if self._found(render(mild)) == wanted else strict, characters)

    def tokenize(self, prompt: str, characters: dict[int, str], *, add_bos: bool) -> list[int]:
        """The tokens of a rendered prompt, in which stand-ins become characters of plain text."""
        ids = self._vocab.tokenize(b"", add_bos, False)
        if add_bos:
            prompt = self._vocab.without_bos(prompt.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
        for piece in self._split(prompt):
            if isinstance(piece, _Control):
                ids.append(piece.token)
            else:
                text = piece.translate(characters).encode("utf-8", "surrogatepass")
                ids += self._vocab.tokenize(text, False, False)
        return ids

    def split(self, text: str) -> list[str | int]:
        """A text as pieces of plain text and the control tokens that it spells."""
        return [piece.token if isinstance(piece, _Control) else piece for piece in self._split(text)]

    def spelled_in(self, texts: Collection[str]) -> frozenset[int]:
        """The control tokens that one of the texts spells."""
        return frozenset(
            control.token for control in self._longest_first if any(control.text in text for text in texts)
        )

    @cached_property
    def _longest_first(self) -> list[_Control]:
        """Those that have a mark in their text, in the order in which llama.cpp looks for them."""
        found = []
        for token in range(self._vocab.n_tokens):
            attributes = llama_cpp.llama_vocab_get_attr(self._vocab.handle, token)
            if attributes & (llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN):
                text = llama_cpp.llama_vocab_get_text(self._vocab.handle, token).decode("utf-8", "replace")
                before, behind = llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP, llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP
                found.append(_Control(text, token, bool(attributes & before), bool(attributes & behind)))
        return sorted(filter(_marks, found), key=lambda control: -len(control.text.encode()))

    @cached_property
    def _marks(self) -> set[str]:
        return set().union(*map(_marks, self._longest_first))

    def _found(self, prompt: str) -> list[int]:
        return [piece.token for piece in self._split(prompt) if isinstance(piece, _Control)]

    def _split(self, prompt: str) -> list[str | _Control]:
        pieces: list[str | _Control] = [prompt]
        for control in self._longest_first:
            if control.text in prompt:
                pieces = [part for piece in pieces for part in _cut(piece, control)]
        return pieces


def _marks(control: _Control) -> set[str]:
    """What a word has not: without it a template's own words, such as the name of a role, spell no control token."""
    return {c for c in control.text if not (c.isalnum() or c.isspace() or c in "_-")}


def _cut(piece: str | _Control, control: _Control) -> Iterator[str | _Control]:
    if isinstance(piece, _Control):
        yield piece
        return
    first, *others = piece.split(control.text)
    for other in others:
        yield from filter(None, [first.rstrip(_SPACE) if control.eats_before else first])
        yield control
        first = other.lstrip(_SPACE) if control.eats_behind else other
    yield from filter(None, [first])


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for item in value:
            yield from _strings(item)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The value with all of its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_changed(key, change): _changed(item, change) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_changed(item, change) for item in value]
    return value
