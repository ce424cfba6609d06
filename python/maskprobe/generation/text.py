"""Tokens to text, one at a time: half characters and possible stop strings are held back.

Knows bytes and strings; leaves the tokenizer to the caller.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of successive tokens into text that may be shown.

    >>> text = TextStream(stop=["END"])
    >>> [text.push(piece) for piece in (b"a E", b"N", b"D b")], text.stopped_by
    (['a ', '', ''], 'END')
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped_by = ""  # the stop string that was met; nothing follows

    def push(self, piece: bytes) -> str:
        """The text that the next token's bytes complete, up to the first stop string."""
        return self._release(self._decoder.decode(piece), final=False)

    def finish(self) -> str:
        """The text still held back at the end; half a character is dropped."""
        return self._release("", final=True)

    def _release(self, text: str, final: bool) -> str:
        if self.stopped_by:
            return ""
        if not self._stop:
            return text
        self._held += text
        found = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            cut, self.stopped_by = min(found)
            return self._take(cut)
        return self._take(len(self._held) if final else len(self._held) - self._possible_stop())

    def _take(self, n: int) -> str:
        text, self._held = self._held[:n], self._held[n:]
        return text

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = max(map(len, self._stop), default=0)
        for n in range(min(longest - 1, len(self._held)), 0, -1):
            if self._held.endswith(tuple(stop[:n] for stop in self._stop if len(stop) > n)):
                return n
        return 0
