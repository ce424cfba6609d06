"""Seats: whoever generates has one, with a session in the core. An object has one, or several that share passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from ..core.pool import Pool, PoolFigures
from ..core.session import Pass, Session
from .passes import Passes
from .tally import Tally


class Seat:
    """A session that nobody else's passes have to do with."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.tokens: list[int] = []  # of the latest text here, as far as it is known
        self.n_prompt = 0  # of these, the prompt's
        self.thread = 0  # that has it, 0 = it is free
        self.used = 0  # when it was taken last: a count
        self.tally: Tally | None = None  # of the generation that is under way here
        self.n_made = 0  # passes that are nobody else's

    def prefill(self, out: Pass) -> None:
        """A pass with a piece of the prompt."""
        self.session.prefill(out)
        self.n_made += 1

    def step(self, out: Pass) -> None:
        """A pass behind the prompt."""
        self.session.step(out)
        self.n_made += 1

    def paused(self) -> AbstractContextManager[None]:
        """The session, for calls that are no passes."""
        return nullcontext()

    def end(self) -> None:
        """The generation is over, whatever has ended it."""
        self.session.end()


class LaneSeat(Seat):
    """A lane, whose passes are those of other lanes too."""

    def __init__(self, session: Session, lane: int, passes: Passes) -> None:
        super().__init__(session)
        self._lane = lane
        self._passes = passes

    def prefill(self, out: Pass) -> None:
        self._passes.step(self._lane, out)

    def step(self, out: Pass) -> None:
        self._passes.step(self._lane, out)

    def paused(self) -> AbstractContextManager[None]:
        return self._passes.paused()

    def end(self) -> None:
        self._passes.leave(self._lane, super().end)


class Seats:
    """All seats of an object.

    Args:
        session: the only one, if there is no pool.
        pool: whose lanes are the sessions.
    """

    def __init__(self, session: Session, pool: Pool | None) -> None:
        self._pool = pool
        self._passes = None if pool is None else Passes(pool)
        self.all: list[Seat] = [Seat(session)]
        if pool is not None and self._passes is not None:
            self.all = [LaneSeat(session, lane, self._passes) for lane, session in enumerate(pool.lanes)]

    def choose(self, free: Sequence[Seat], prompt: Sequence[int]) -> Seat:
        """The best of these for a prompt: one whose text it goes on from, else the one that was used longest ago."""
        if len(self.all) == 1:
            return free[0]

        return max(free, key=lambda seat: (self._n_useful(seat, prompt), -seat.used))

    def _n_useful(self, seat: Seat, prompt: Sequence[int]) -> int:
        """Tokens of a prompt for which it should be in this seat."""
        n_common, n = _common_prefix(seat.tokens, prompt), len(seat.tokens)
        if self._pool is not None and self._pool.sizes.has_states:  # which go on from a text's end, or its prompt's
            return n if n_common == n else seat.n_prompt if n_common >= seat.n_prompt else 0
        return n_common if 2 * n_common > n else 0

    def figures(self) -> PoolFigures | None:
        """What the cells of a pool are used for, None if there is none."""
        if self._pool is None or self._passes is None:
            return None
        with self._passes.paused():
            return self._pool.figures()

    def check_thread(self) -> None:
        """Raises BusyError within a pass that several share: whoever calls this would wait for itself."""
        if self._passes is not None:
            self._passes.check_thread()

    def close(self) -> None:
        """No passes any more."""
        if self._passes is not None:
            self._passes.close()

    @property
    def n_passes(self) -> int:
        """Passes that were made; one that lanes have shared counts once."""
        return sum(seat.n_made for seat in self.all) if self._passes is None else self._passes.n_made

    def tally(self, thread: int) -> Tally | None:
        """How far the generation is that a thread is in, for other threads to look at; None if it is in none."""
        return next((seat.tally for seat in self.all if seat.thread == thread), None)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
