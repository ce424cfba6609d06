"""Grammars that begin in the middle of a text: where a tool is called, or where reasoning has ended.

Knows texts and tokens as they come; leaves the grammar itself to llguidance's matcher. What has been committed alone
decides, so an answer is the same however its tokens were drafted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from llguidance import LLMatcher

from ..llamacpp.vocabulary import Vocabulary


@dataclass(frozen=True)
class Trigger:
    """Where a grammar begins: with the first of these texts that stands outside reasoning, and is a part of it."""

    texts: tuple[str, ...]
    at_start: tuple[str, ...] = ()  # further ones, that count only where nothing but white space is before them
    reasoning: tuple[str, str] | None = None  # what opens and closes it
    is_reasoning: bool = False  # whether the text begins within it


class LazyMatcher:
    """What an LLMatcher is to a sampler: everything is allowed until the trigger, then what the matcher allows.

    A trigger whose token goes on as the grammar does not is passed over: the token was the model's free choice.
    """

    def __init__(self, matcher: LLMatcher, trigger: Trigger, vocab: Vocabulary) -> None:
        self._matcher = matcher
        self._vocab = vocab
        self._scanner = _Scanner(trigger)
        self._tokens: deque[tuple[int, int]] = deque()  # where each begins, of those in which a trigger may begin
        self._n_bytes = 0
        self._has_begun = False
        self._look(b"")

    def consume_token(self, token: int) -> bool:
        """Takes a committed token."""
        if self._has_begun:
            return bool(self._matcher.consume_token(token))
        piece = self._vocab.piece(token, special=True)
        self._tokens.append((self._n_bytes, token))
        self._n_bytes += len(piece)
        self._look(piece)
        return True

    def _look(self, piece: bytes) -> None:
        at = self._scanner.push(piece)
        while at is not None and not self._has_begun:
            tokens = self._tokens_from(at)
            self._has_begun = -1 not in tokens and self._matcher.validate_tokens(tokens) == len(tokens)
            if self._has_begun:
                self._matcher.consume_tokens(tokens)
            else:
                at = self._scanner.pass_over(at)
        while len(self._tokens) > 1 and self._tokens[1][0] <= self._scanner.n_seen:
            self._tokens.popleft()

    def _tokens_from(self, at: int) -> list[int]:
        """The text from a byte on as tokens: the one in which that byte stands is spelled in tokens of one byte."""
        tokens: list[int] = []
        for start, token in self._tokens:
            piece = self._vocab.piece(token, special=True)
            if start >= at:
                tokens.append(token)
            else:
                tokens += map(self._byte_token, piece[at - start :])
        return tokens

    def _byte_token(self, byte: int) -> int:
        """A token of one byte; a vocabulary that lacks it has no way to say the trigger's rest: -1."""
        wanted = bytes([byte])
        return next((token for token in range(self._vocab.n_tokens) if self._vocab.piece(token) == wanted), -1)

    @property
    def begun(self) -> LLMatcher | None:
        """The grammar's own matcher, None until it has begun."""
        return self._matcher if self._has_begun else None

    def compute_bitmask(self) -> bytes | None:
        """The tokens that are allowed next, None = all."""
        return self._matcher.compute_bitmask() if self._has_begun else None

    def is_error(self) -> bool:
        """Whether the grammar cannot go on."""
        return bool(self._matcher.is_error())

    def is_accepting(self) -> bool:
        """Whether the text may end here."""
        return not self._has_begun or bool(self._matcher.is_accepting())

    def get_error(self) -> str:
        """Why it cannot go on."""
        return str(self._matcher.get_error())


class _Scanner:
    """Looks for the trigger in a text that comes in pieces, in time that grows with the text alone."""

    def __init__(self, trigger: Trigger) -> None:
        opening, closing = trigger.reasoning or ("", "")
        self._opening, self._closing = opening.encode(), closing.encode()
        self._texts = [text.encode() for text in trigger.texts]
        self._at_start = tuple(text.encode() for text in trigger.at_start)
        self._is_reasoning = trigger.is_reasoning
        self._is_start = True  # nothing but white space and reasoning has come
        self._held = b""  # in which something may begin that we look for
        self.n_seen = 0  # bytes before that

    def push(self, piece: bytes) -> int | None:
        """Where the trigger begins, None if it is not there yet."""
        self._held += piece
        while True:
            if not self._is_reasoning and (start := self._start()) is not None:
                return start
            wanted = [self._closing] if self._is_reasoning else [*filter(None, [self._opening]), *self._texts]
            at, found = min(((self._held.find(text), text) for text in wanted if text in self._held), default=(-1, b""))
            if at < 0:
                longest = max(map(len, [*wanted, *self._at_start]), default=0)
                self._drop(max(0, len(self._held) - longest))
                return None
            if not self._is_reasoning and found != self._opening:
                return self.n_seen + at
            self._drop(at + len(found))
            self._is_reasoning, self._is_start = not self._is_reasoning, True

    def pass_over(self, at: int) -> int | None:
        """Where the next trigger begins, behind the beginning of one."""
        self._drop(at - self.n_seen + 1)
        self._is_start = False
        return self.push(b"")

    def _start(self) -> int | None:
        """Where the text begins, if it does so with a trigger."""
        begun = self._held.lstrip()
        if self._is_start and begun.startswith(self._at_start):
            return self.n_seen + len(self._held) - len(begun)
        self._is_start = self._is_start and any(text.startswith(begun) for text in self._at_start)
        return None

    def _drop(self, n: int) -> None:
        self._held = self._held[n:]
        self.n_seen += n
