"""Rules of a grammar in llguidance's notation, put together piece by piece.

Knows the notation; leaves what is written to its users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from ...grammars.schemas import Schema, item_of_schema

Split = Callable[[str], list[str | int]]  # a text as pieces of text and control tokens

_SPACE = re.compile(r"(\s+)")
_SPACES = r"/ |\r?\n(\r?\n)?[ \t]{0,40}/"  # small models find no end of more
_INDENT = r"/ |\r?\n[ \t]{0,40}/"
_ANYTHING = r"(.|\n)*"


class Rules:
    """Rules that were made so far; every method returns an item that others may be made of.

    Args:
        split: of the vocabulary: control tokens are no text to a grammar, which names them by id.
        is_end: tells tokens that end a generation, which no grammar need name.
        check: raises a ValueError or TypeError for a schema that cannot be enforced, or allows nothing.
    """

    space = "WS?"  # between two items of a format
    indent = "INDENT?"  # between two of JSON, as in schemas

    def __init__(self, split: Split, is_end: Callable[[int], bool], check: Callable[[Schema], object]) -> None:
        self._split = split
        self._is_end = is_end
        self._check = check
        self._names: dict[str, str] = {_SPACES: "WS", _INDENT: "INDENT"}  # by body
        self._lines: list[str] = []

    def grammar(self, start: str) -> str:
        """The grammar that begins with an item."""
        named = [f"{name}: {body}\n" for body, name in self._names.items()]
        return f"start: {start}\n" + "".join(named + self._lines)

    def literal(self, text: str) -> str:
        """A text; where it breaks a line any white space may stand or none, and blanks but between words need not."""
        return self._written(text, self._spaced)

    def verbatim(self, text: str) -> str:
        """A text as it is."""
        return self._written(text, lambda piece: [self.exactly(piece)])

    def _written(self, text: str, plain: Callable[[str], Iterable[str]]) -> str:
        items: list[str] = []
        for piece in self._split(text):
            if isinstance(piece, str):
                items += plain(piece)
            elif self._is_end(piece):
                break
            else:
                items.append(f"<[{piece}]>")
        return " ".join(items)

    def _spaced(self, text: str) -> Iterator[str]:
        parts = _SPACE.split(text)
        for i, part in enumerate(parts):
            if part.isspace():
                between_words = parts[i - 1][-1:].isalnum() and parts[i + 1][:1].isalnum()
                exact = self.exactly(part)
                yield self.space if "\n" in part else exact if between_words else f"{exact}?"
            elif part:
                yield self.exactly(part)

    def ends_in(self, text: str) -> bool:
        """Whether a text holds a token that ends the generation."""
        return any(self._is_end(piece) for piece in self._split(text) if isinstance(piece, int))

    def exactly(self, text: str) -> str:
        """A text of no control tokens, as it is."""
        return json.dumps(text, ensure_ascii=False)

    def until(self, end: str) -> str:
        """Any text up to another, and that."""
        first, *rest = self._split(end.strip())
        behind = [f"<[{piece}]>" if isinstance(piece, int) else self.exactly(piece) for piece in rest]
        if isinstance(first, int):
            return " ".join([self.pattern(_ANYTHING), f"<[{first}]>", *behind])
        name = f"l{len(self._lines)}"
        self._lines.append(f"{name}[lazy]: /{_ANYTHING}{_escaped(first)}/\n")
        return " ".join([name, *behind])

    def pattern(self, regex: str) -> str:
        """What a regular expression matches, which holds no slash."""
        body = f"/{regex}/"
        return self._names.setdefault(body, f"P{len(self._names)}")

    def json(self, schema: Schema) -> str:
        """JSON that follows a schema, if that can be enforced."""
        self._check(schema)
        return self.rule(item_of_schema(schema))

    def rule(self, body: str) -> str:
        """A rule of its own."""
        return self._names.setdefault(body or '""', f"r{len(self._names)}")

    def one_of(self, items: Iterable[str]) -> str:
        """One of several items."""
        return self.rule(" | ".join(items))

    def reserve(self) -> str:
        """The name of a rule that is needed before its body is known."""
        self._lines.append("")
        return f"d{len(self._lines)}"

    def define(self, name: str, body: str) -> None:
        """The body of a reserved rule."""
        self._lines.append(f"{name}: {body}\n")

    def listed(self, parts: list[tuple[str, bool]], separator: str) -> str:
        """Items in a row, with separators between those that are there; with each, whether it must be."""
        behind = self.rule('""')  # what follows when something was written before
        first = behind  # and when nothing was
        for part, must in reversed(parts):
            more = self.rule(f"{separator} {part} {behind}")
            begun = self.rule(f"{part} {behind}")
            behind, first = (more, begun) if must else (self.one_of([more, behind]), self.one_of([begun, first]))
        return first


def _escaped(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$/#&~-])", r"\\\1", text).replace("\n", r"\n")
