"""llama.cpp's grammar notation (GBNF) in llguidance's, with the same language.

Every character becomes a lexeme of its own, because llguidance's lexer is greedy and GBNF has none. Knows the notation
and its limits; leaves what a grammar allows to llguidance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_CHARACTERS = 65536
MAX_DEPTH = 150  # of groups within groups
MAX_REPEATS = 2000  # of one thing, as in llama.cpp

_BLANKS = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_DEFINED_AS = re.compile(r"::=")
_REPEAT = re.compile(r"[*+?]")
_BOUNDS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_NUMBER = re.compile(r"[0-9]+")
_TOKEN = re.compile(r"(!?)<(?:\[([0-9]+)\]>|([^>]*)>)")
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([trn\\"\[\]-]))')
_NAMED_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}
_CHARACTERS = (0x1, 0x10FFFF)  # llama.cpp's texts end at a NUL
_SURROGATES = (0xD800, 0xDFFF)

TokenOf = Callable[[str], "int | None"]  # the id of the token with that text, None if it is not one token
Range = tuple[int, int]  # of characters, both ends included


@dataclass(frozen=True)
class Lexeme:
    """One character or token, in llguidance's notation."""

    text: str


@dataclass(frozen=True)
class Reference:
    """A rule, by name."""

    name: str


@dataclass(frozen=True)
class Repeat:
    """Something several times; most = None: without end."""

    item: Item
    least: int
    most: int | None


@dataclass(frozen=True)
class Group:
    """One of several sequences."""

    alternatives: list[list[Item]]


Item = Lexeme | Reference | Repeat | Group


def to_lark(grammar: str, token_of: TokenOf) -> str:
    """A GBNF grammar in llguidance's notation.

    Raises:
        ValueError: it cannot be read, or asks for too much; the message says where.
    """
    if len(grammar) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(grammar)} characters, but {MAX_CHARACTERS} are the most")
    rules = _Reader(grammar, token_of).read()
    writer = _Writer({name: "start" if name == "root" else f"r{i}" for i, name in enumerate(rules)})
    for name, body in rules.items():
        writer.write(name, _without_tail_calls(name, body))
    return "".join(writer.lines)


# --- writing ------------------------------------------------------------------------------------------


class _Writer:
    """Writes a rule for every group, because llguidance takes few groups within groups."""

    def __init__(self, names: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._names = names
        self._n_groups = 0

    def write(self, name: str, body: Group) -> None:
        self.lines.append(f"{self._names[name]}: {self._alternatives(body)}\n")

    def _alternatives(self, group: Group) -> str:
        return " | ".join(" ".join(map(self._item, sequence)) or '""' for sequence in group.alternatives)

    def _item(self, item: Item) -> str:
        if isinstance(item, Lexeme):
            return item.text
        if isinstance(item, Reference):
            return self._names[item.name]
        if isinstance(item, Group):
            return self._rule(self._alternatives(item))
        inner = self._item(item.item)
        inner = self._rule(inner) if isinstance(item.item, Repeat) else inner
        return f"{inner}{{{item.least},{'' if item.most is None else item.most}}}"

    def _rule(self, body: str) -> str:
        self._n_groups += 1
        name = f"g{self._n_groups}"
        self.lines.append(f"{name}: {body}\n")
        return name


def _without_tail_calls(name: str, body: Group) -> Group:
    """The rule with a loop in place of calls of itself at its end, whose cost would grow with the text."""
    loops: list[list[Item]] = []
    ends: list[list[Item]] = []
    for sequence in body.alternatives:
        for path in _tails(sequence, name):
            if path and path[-1] == Reference(name):
                loops.append(path[:-1])
            else:
                ends.append(path)
    if not loops or not ends:
        return body
    return Group([[Repeat(Group(loops), 0, None), Group(ends)]])


def _tails(sequence: list[Item], name: str) -> Iterator[list[Item]]:
    """The sequence as alternatives, with its last item resolved where the rule is called at the end of it."""
    last = sequence[-1] if sequence else None
    if not isinstance(last, (Group, Repeat)) or not _calls_at_end(last, name):
        yield sequence
        return
    before = sequence[:-1]
    if isinstance(last, Repeat):
        yield before
        yield from _tails([*before, last.item], name)
    else:
        for alternative in last.alternatives:
            yield from _tails([*before, *alternative], name)


def _calls_at_end(item: Item | None, name: str) -> bool:
    if isinstance(item, Repeat):
        return (item.least, item.most) == (0, 1) and _calls_at_end(item.item, name)
    if isinstance(item, Group):
        return any(_calls_at_end(sequence[-1] if sequence else None, name) for sequence in item.alternatives)
    return item == Reference(name)


def _lexeme(ranges: list[Range], negated: bool = False) -> Lexeme | None:
    """One of these characters, None if there is none."""
    if negated:
        ranges = _others(ranges)
    parts = [f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in map(_without_surrogates, ranges) if first <= last]
    return Lexeme(f"/[{''.join(parts)}]/") if parts else None


def _without_surrogates(characters: Range) -> Range:
    """They are no characters; llguidance takes ranges across them, but none that begin or end with one."""
    first, last = max(characters[0], _CHARACTERS[0]), min(characters[1], _CHARACTERS[1])
    low, high = _SURROGATES
    return (high + 1 if low <= first <= high else first, low - 1 if low <= last <= high else last)


def _others(ranges: list[Range]) -> list[Range]:
    others, start = [], _CHARACTERS[0]
    for first, last in sorted(characters for characters in ranges if characters[0] <= characters[1]):
        others.append((start, first - 1))
        start = max(start, last + 1)
    return [*others, (start, _CHARACTERS[1])]


# --- reading ------------------------------------------------------------------------------------------


class _Reader:
    """Reads a grammar by recursive descent, in the places and with the blanks where llama.cpp does."""

    def __init__(self, text: str, token_of: TokenOf) -> None:
        self._text = text
        self._token_of = token_of
        self._at = 0
        self._first_use: dict[str, int] = {}

    def read(self) -> dict[str, Group]:
        """The rules by name."""
        rules: dict[str, Group] = {}
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._expect(_NAME, "the name of a rule")[0]
            self._skip()
            self._expect(_DEFINED_AS, "::=")
            self._skip(lines=True)
            rules[name] = self._read_alternatives(0)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                raise self._error("expected a newline")
            self._skip(lines=True)
        for name, at in self._first_use.items():
            if name not in rules:
                raise self._error(f"there is no rule named {name}", at)
        if "root" not in rules:
            raise ValueError("it has no rule named root")
        return rules

    def _read_alternatives(self, depth: int) -> Group:
        if depth > MAX_DEPTH:
            raise self._error(f"groups are nested more than {MAX_DEPTH} deep")
        alternatives = [self._read_sequence(depth)]
        while self._take("|"):
            self._skip(lines=True)
            alternatives.append(self._read_sequence(depth))
        return Group(alternatives)

    def _read_sequence(self, depth: int) -> list[Item]:
        items: list[Item] = []
        while (item := self._read_item(depth)) is not None:
            self._skip(lines=depth > 0)
            items.append(self._read_repeats(item, lines=depth > 0))
        return items

    def _read_item(self, depth: int) -> Item | None:
        at = self._at
        if self._take('"'):
            return self._read_literal()
        if self._take("["):
            return self._read_class(at)
        if self._take("."):
            return _lexeme([_CHARACTERS])
        if self._take("("):
            self._skip(lines=True)
            group = self._read_alternatives(depth + 1)
            if not self._take(")"):
                raise self._error("expected )")
            return group
        if match := self._match(_NAME):
            self._first_use.setdefault(match[0], at)
            return Reference(match[0])
        if match := self._match(_TOKEN):
            token = int(match[2]) if match[2] else self._token_of(f"<{match[3]}>")
            if token is None:
                raise self._error(f"<{match[3]}> is no single token of this model", at)
            return Lexeme(f"<[{'^' if match[1] else ''}{token}]>")
        return None

    def _read_literal(self) -> Group:
        characters: list[Item] = []
        while not self._take('"'):
            at = self._at
            code = self._read_character()
            lexeme = _lexeme([(code, code)])
            if lexeme is None:
                raise self._error("this is no character", at)
            characters.append(lexeme)
        return Group([characters])

    def _read_class(self, at: int) -> Item:
        negated = self._take("^")
        ranges: list[Range] = []
        while not self._take("]"):
            first = self._read_character()
            if self._text.startswith("-", self._at) and not self._text.startswith("]", self._at + 1):
                self._at += 1
                ranges.append((first, self._read_character()))
            else:
                ranges.append((first, first))
        lexeme = _lexeme(ranges, negated)
        if lexeme is None:
            raise self._error("no character is in this class", at)
        return lexeme

    def _read_character(self) -> int:
        at = self._at
        if at >= len(self._text):
            raise self._error("expected the closing quote or bracket")
        if self._text[at] != "\\":
            self._at += 1
            return ord(self._text[at])
        match = self._expect(_ESCAPE, "one of GBNF's escapes")
        if match[4]:
            return ord(_NAMED_ESCAPES.get(match[4], match[4]))
        return int(match[1] or match[2] or match[3], 16)

    def _read_repeats(self, item: Item, lines: bool) -> Item:
        while True:
            if match := self._match(_REPEAT):
                item = Repeat(item, *_BOUNDS[match[0]])
            elif self._take("{"):
                item = Repeat(item, *self._read_bounds(lines))
            else:
                return item
            self._skip(lines)

    def _read_bounds(self, lines: bool) -> tuple[int, int | None]:
        at = self._at - 1
        self._skip(lines)
        least = int(self._expect(_NUMBER, "a number")[0][:9])
        most: int | None = least
        self._skip(lines)
        if self._take(","):
            self._skip(lines)
            match = self._match(_NUMBER)
            most = int(match[0][:9]) if match else None
            self._skip(lines)
        if not self._take("}"):
            raise self._error("expected }")
        if most is not None and most < least:
            raise self._error(f"at least {least} and at most {most} cannot be", at)
        if max(least, most or 0) > MAX_REPEATS:
            raise self._error(f"{MAX_REPEATS} repetitions are the most", at)
        return least, most

    # --- the text ---

    def _skip(self, lines: bool = False) -> None:
        match = (_BLANK_LINES if lines else _BLANKS).match(self._text, self._at)
        assert match is not None, "blanks may be none"
        self._at = match.end()

    def _take(self, character: str) -> bool:
        if not self._text.startswith(character, self._at):
            return False
        self._at += 1
        return True

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _expect(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        match = self._match(pattern)
        if match is None:
            raise self._error(f"expected {what}")
        return match

    def _error(self, what: str, at: int | None = None) -> ValueError:
        at = self._at if at is None else at
        line = self._text.count("\n", 0, at) + 1
        found = self._text[at : at + 20].splitlines()
        return ValueError(f"line {line}: {what}, found {found[0]!r}" if found else f"line {line}: {what}, but it ends")
