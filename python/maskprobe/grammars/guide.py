"""What a grammar says of drafts: which tokens may follow them, and which one the text that must follow begins with.

Has a matcher of its own, so that nothing that goes wrong in looking ahead is felt by the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from llguidance import LLMatcher

from .lazy import LazyMatcher


class Guide:
    """Looks ahead of the committed tokens; knows nothing any more once its matcher has failed.

    Args:
        make: makes the matcher, when it is asked for the first time.
    """

    def __init__(self, make: Callable[[], LLMatcher | LazyMatcher]) -> None:
        self._make = make
        self._matcher: LLMatcher | LazyMatcher | None = None
        self._committed: list[int] = []  # which the matcher has not taken yet
        self._forced: dict[tuple[int, ...], list[int]] = {}  # what must follow drafted tokens

    def go_on(self, token: int) -> None:
        """The answer goes on with this token."""
        self._committed.append(token)
        self._forced.clear()

    def allowed(self, drafted: list[int]) -> tuple[bytes, int | None] | None:
        """What may follow the committed tokens and some drafted ones; None where nothing is known.

        Returns:
            A bit for each token, the lowest first, in words of 32; and the token with which the text that must follow
            begins, if there is such a text.
        """
        matcher = self._up_to_date()
        if matcher is None or matcher.is_error():
            return None
        n = matcher.try_consume_tokens(drafted)
        answer = self._look(matcher, tuple(drafted)) if n == len(drafted) else None
        matcher.rollback(n)
        return None if matcher.is_error() else answer

    def _up_to_date(self) -> LLMatcher | None:
        """The matcher behind the committed tokens, None before the grammar begins."""
        if self._matcher is None:
            self._matcher = self._make()
        for token in self._committed:
            self._matcher.consume_token(token)
        self._committed.clear()
        return self._matcher.begun if isinstance(self._matcher, LazyMatcher) else self._matcher

    def _look(self, matcher: LLMatcher, drafted: tuple[int, ...]) -> tuple[bytes, int | None]:
        bits = matcher.compute_bitmask()
        before = self._forced.get(drafted[:-1], []) if drafted else []
        if before[1:] and before[0] == drafted[-1]:
            forced = before[1:]
        else:
            forced = matcher.compute_ff_tokens() if matcher.compute_ff_bytes() else []  # it needs the bytes first
        self._forced[drafted] = forced
        return bits, forced[0] if forced else None
