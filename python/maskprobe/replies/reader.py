"""Text that arrives in pieces, read as if it were all there: every method that needs more text yields for it.

What is read is gone, so that unread text stays short and reading stays linear; only what was read since the last
`mark` can be had back, by `back`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]  # yields where it needs more text, returns a T

_BLANK = re.compile(r"\s*")
_NAME = re.compile(r"""[^\s\[\]{}()<>"'=,;|\uff5c]+""")  # \uff5c: the bar of DeepSeek's markers
_LONGEST_NAME = 256
_LONGEST_GAP = 256  # blanks that are looked past


class MalformedError(Exception):
    """The text is not what its format asks for."""


class CutOffError(Exception):
    """The reply ended inside what was being read."""


@lru_cache(maxsize=512)
def _any_of(texts: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], int]:
    """Patterns of these texts (the longest first) and of their first characters; the longest one's length."""
    if not texts:
        return re.compile("(?!)"), re.compile("(?!)"), 1
    ordered = sorted(texts, key=len, reverse=True)
    firsts = "".join(re.escape(text[0]) for text in ordered)
    return re.compile("|".join(map(re.escape, ordered))), re.compile(f"[{firsts}]"), len(ordered[0])


class Reader:
    """Unread text: `feed` adds to it, `close` says that no more comes."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0  # before it everything is read
        self._from = 0  # of the mark, in _text
        self._marked = False
        self._kept: list[str] = []  # what was read since the mark and is no longer in _text
        self._ended = False

    def feed(self, text: str) -> None:
        if self._marked and self._at > self._from:
            self._kept.append(self._text[self._from : self._at])
        self._text = self._text[self._at :] + text
        self._at = self._from = 0

    def close(self) -> None:
        self._ended = True

    @property
    def empty(self) -> bool:
        """Whether everything there is was read."""
        return self._at == len(self._text)

    def mark(self) -> None:
        self._marked = True
        self._kept.clear()
        self._from = self._at

    def unmark(self) -> None:
        """Lets go of what was read since the mark."""
        self._marked = False
        self._kept.clear()
        self._from = self._at

    def since_mark(self) -> str:
        """What was read since the mark, nothing without one."""
        if not self._marked:
            return ""
        return "".join(self._kept) + self._text[self._from : self._at]

    def back(self) -> None:
        """Unreads what was read since the mark."""
        if self._kept:
            self._text = self.since_mark() + self._text[self._at :]
            self._from = 0
            self._kept.clear()
        self._at = self._from

    def take(self, count: int) -> str:
        """The next characters, which must be there."""
        text = self._text[self._at : self._at + count]
        self._at += count
        return text

    def rest(self) -> str:
        """All that is unread, read now."""
        return self.take(len(self._text) - self._at)

    def more(self) -> Reading[None]:
        """Waits for text; a CutOffError at the reply's end."""
        if self._ended:
            raise CutOffError
        yield

    def peek(self) -> Reading[str]:
        """The next character, unread."""
        while self.empty:
            yield from self.more()
        return self._text[self._at]

    def run(self, pattern: re.Pattern[str]) -> Reading[str]:
        """As many characters as a pattern of the kind [...]* takes; fewer at the reply's end."""
        pieces = []
        while True:
            match = pattern.match(self._text, self._at)
            if match:
                pieces.append(self.take(match.end() - self._at))
            if not self.empty or self._ended:
                return "".join(pieces)
            yield from self.more()

    def blank(self) -> Reading[str]:
        return (yield from self.run(_BLANK))

    def name(self) -> Reading[str]:
        """A tool's name; a MalformedError if there is none here."""
        while True:
            match = _NAME.match(self._text, self._at)
            if not match and not self.empty:
                raise MalformedError
            if match and (match.end() < len(self._text) or match.end() - self._at > _LONGEST_NAME):
                if match.end() - self._at > _LONGEST_NAME:
                    raise MalformedError
                return self.take(match.end() - self._at)
            yield from self.more()

    def until(self, texts: tuple[str, ...], sink: Callable[[str], object]) -> Reading[str | None]:
        """Hands what stands before the first of these texts to the sink as it comes, and leaves that text unread.

        Returns which one it is, or None at the reply's end.
        """
        pattern, firsts, longest = _any_of(texts)
        while True:
            match = pattern.search(self._text, self._at)
            if match:
                if match.start() > self._at:
                    sink(self.take(match.start() - self._at))
                return match.group()
            stop = len(self._text)
            if not self._ended:  # a text may have begun
                for first in firsts.finditer(self._text, max(self._at, stop - longest + 1)):
                    tail = self._text[first.start() :]
                    if any(text.startswith(tail) for text in texts):
                        stop = first.start()
                        break
            if stop > self._at:
                sink(self.take(stop - self._at))
            if self._ended:
                return None
            yield

    def next_is(self, *texts: str) -> Reading[str | None]:
        """Which of these texts, the longest one, comes next, left unread; a CutOffError if the end leaves it open."""
        ordered = sorted(texts, key=len, reverse=True)
        while True:
            for text in ordered:
                if self._text.startswith(text, self._at):
                    return text
                if len(text) > len(self._text) - self._at and text.startswith(self._text[self._at :]):
                    break  # it may become this one
            else:
                return None
            yield from self.more()

    def followed_by(self, passed: int, texts: tuple[str, ...]) -> Reading[bool]:
        """Whether one of these texts comes after so many characters and any blanks.

        A CutOffError if the reply's end leaves it open.
        """
        while True:
            match = _BLANK.match(self._text, self._at + passed)
            start = match.end() if match else len(self._text)
            if any(self._text.startswith(text, start) for text in texts):
                return True
            rest = self._text[start : start + max(map(len, texts))]
            if start - self._at - passed > _LONGEST_GAP or not any(text.startswith(rest) for text in texts):
                return False
            yield from self.more()

    def literal(self, text: str, *, optional: bool = False) -> Reading[bool]:
        """Reads a text's words, {n} for a number, with any whitespace round them; else a MalformedError, or False."""
        for count, word in enumerate(text.split()):
            yield from self.blank()
            for part in re.split(r"(\{n\})", word):
                if part == "{n}":
                    yield from self.run(re.compile(r"[0-9]*"))
                elif part:
                    found = yield from self.next_is(part)
                    if found is None and optional and not count:
                        return False
                    if found is None:
                        raise MalformedError
                    self.take(len(part))
        return True
