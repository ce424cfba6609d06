"""Seats: whoever generates has one, with a session in the core. An object has one, or several that share passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from ..core.pool import Pool, PoolFigures
from ..core.session import Pass, Session
from .passes import Passes


class Seat:
    """A session, and how to have passes of it.

    Args:
        session: which generates here.
        step: one pass of it.
        prefill: one of its prompt.
        paused: other calls of the core are made in it.
        leave: nobody has to wait for its next pass.
    """

    def __init__(
        self,
        session: Session,
        step: Callable[[Pass], None],
        prefill: Callable[[Pass], None],
        paused: Callable[[], AbstractContextManager[None]] = nullcontext,
        leave: Callable[[], None] | None = None,
    ) -> None:
        self.session = session
        self.step = step
        self.prefill = prefill
        self.paused = paused
        self._leave = leave
        self.tokens: list[int] = []  # of the latest text here, as far as it is known
        self.thread = 0  # that has it, 0 = it is free
        self.used = 0  # when it was taken last: a count

    def end(self) -> None:
        """The generation is over, whatever has ended it."""
        if self._leave is not None:
            self._leave()
        with self.paused():
            self.session.end()


class Seats:
    """All seats of an object.

    Args:
        session: the only one, if there is no pool.
        pool: whose lanes are the sessions.
    """

    def __init__(self, session: Session, pool: Pool | None) -> None:
        self._pool = pool
        self._passes: Passes | None = None
        if pool is None:
            self.all = [Seat(session, session.step, session.prefill)]
        else:
            self._passes = Passes(pool)
            self.all = list(_lanes(pool.lanes, self._passes))

    def choose(self, free: Sequence[Seat], prompt: Sequence[int]) -> Seat:
        """The best of these for a prompt: one whose text it goes on from, else the one that was used longest ago."""
        if len(self.all) == 1:
            return free[0]

        def worth(seat: Seat) -> tuple[int, int]:
            n_common = _common_prefix(seat.tokens, prompt)
            return (n_common if 2 * n_common > len(seat.tokens) else 0, -seat.used)

        return max(free, key=worth)

    def figures(self) -> PoolFigures | None:
        """What the cells of a pool are used for, None if there is none."""
        if self._pool is None or self._passes is None:
            return None
        with self._passes.paused():
            return self._pool.figures()

    @property
    def n_passes(self) -> int:
        """Passes that lanes have shared."""
        return 0 if self._passes is None else self._passes.n_made


def _lanes(sessions: Sequence[Session], passes: Passes) -> Iterator[Seat]:
    for lane, session in enumerate(sessions):
        step = partial(passes.step, lane)
        yield Seat(session, step, step, passes.paused, partial(passes.leave, lane))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
