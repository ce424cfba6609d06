"""Passes for several generations at once: one thread makes them, each for all that are ready.

Knows threads and lanes; what a pass does is the core's. All calls of the core for lanes of one pool go through here,
one at a time. A generation alone makes its passes itself. Those of several are made by one thread, as helpers of
several threads would be in each other's way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..core.pool import Pool
from ..core.session import Pass
from ..errors import BusyError
from ..llamacpp.openmp import release_threads

# A pass is worth waiting for those who took part in the last one and are about to come back. So long at most, in
# seconds, and no longer than a share of a pass.
_MOST_PATIENCE = 0.02
_LEAST_PATIENCE = 0.002
_PATIENCE = 0.25


@dataclass
class _Wish:
    """A lane that is ready for a pass."""

    out: Pass
    thread: int = field(default_factory=threading.get_ident)
    met: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    is_given_up: bool = False  # nobody waits for it any more


@dataclass(eq=False)
class _Hold:
    """Of the core, by one thread at a time."""

    makes_pass: bool
    thread: int = field(default_factory=threading.get_ident)


class Passes:
    """One pass at a time for the lanes of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._hold: _Hold | None = None  # of whoever calls the core
        self._visitors: set[_Hold] = set()  # who want the core for something else than passes; they go first
        self._playing: set[int] = set()  # lanes that have wished for a pass and not left
        self._wishes: dict[int, _Wish] = {}  # by lane
        self._expected: dict[int, int] = {}  # lanes that are about to come back, and the threads they were in
        self._has_maker = False  # from the first wish of several on
        self._is_rested = True  # the maker has no helpers
        self._is_closed = False
        self._ends: list[Callable[[], None]] = []  # of generations that were ended within a pass
        self._patience = _LEAST_PATIENCE
        self.n_made = 0

    def close(self) -> None:
        """Ends the thread, which makes no pass any more; nobody may be generating."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The core, while no pass is made. A fork has it, but not the threads that make passes."""
        if os.getpid() != self._pid:
            yield
            return
        self.check_thread()
        hold = _Hold(makes_pass=False)
        try:  # Ctrl-C may come up anywhere here; a visitor that stayed behind would hold up everybody
            with self._changed:
                self._visitors.add(hold)
            with self._holding(hold):
                yield
        finally:
            release_threads()  # of whoever has computed here, as costs are measured
            with self._changed:
                self._visitors.discard(hold)
                self._changed.notify_all()

    def step(self, lane: int, out: Pass) -> None:
        """A pass for a lane, and for all others that are ready. Without rows if the lane has to wait for room.

        Raises:
            DecodeError, SamplingError: as :meth:`maskprobe.core.session.Session.prefill` does; others go on.
            BusyError: what is called within a pass has called this.
        """
        self.check_thread()
        hold = _Hold(makes_pass=True)
        try:
            with self._changed:
                self._playing.add(lane)
                if len(self._playing) == 1:
                    self._expected.pop(lane, None)
                    self._changed.notify_all()  # the maker may rest
                self._changed.wait_for(lambda: len(self._playing) > 1 or self._is_free())
                if len(self._playing) == 1:
                    self._hold = hold
            error = self._make_pass([lane], [out])[0] if self._hold is hold else self._step_with_others(lane, out)
        finally:
            self._let_go(hold)
        if error is not None:
            raise error

    def _is_free(self) -> bool:
        """Whether a generation alone may have the core."""
        return self._hold is None and not self._visitors and self._is_rested

    def _step_with_others(self, lane: int, out: Pass) -> BaseException | None:
        release_threads()  # of when it was alone
        wish = _Wish(out)
        try:
            with self._changed:
                if not self._has_maker:
                    self._has_maker = True
                    # A process must be able to end whatever the model does.
                    threading.Thread(target=self._make_passes, name="maskprobe-passes", daemon=True).start()
                self._wishes[lane] = wish
                self._expected.pop(lane, None)
                self._changed.notify_all()
            wish.met.wait()
        except BaseException:
            with self._changed:  # interrupted; a pass that takes part already ends by itself
                wish.is_given_up = True
                if self._wishes.get(lane) is wish:
                    del self._wishes[lane]
            raise
        return wish.error

    def leave(self, lane: int, end: Callable[[], None]) -> None:
        """The lane's generation is over: nobody waits for it. `end` is called in the core, after a pass, not in one."""
        if os.getpid() == self._pid:
            with self._changed:
                self._expected.pop(lane, None)
                self._playing.discard(lane)
                self._changed.notify_all()
            if self._is_within_pass():
                self._ends.append(end)
                return
        with self.paused():
            end()

    def check_thread(self) -> None:
        """Raises BusyError if what is called within a pass calls this: it would wait for itself."""
        if self._is_within_pass():
            raise BusyError("what is called within a pass, as logits processors are, cannot generate itself")

    def _is_within_pass(self) -> bool:
        hold = self._hold
        return hold is not None and hold.makes_pass and hold.thread == threading.get_ident()

    def _make_pass(self, lanes: Sequence[int], outs: Sequence[Pass]) -> Sequence[BaseException | None]:
        """A pass, by whoever holds the core, and then what had to wait for its end."""
        try:
            errors = self._pool.step(lanes, outs)
            self.n_made += any(out.n_rows for out in outs)
            return errors
        finally:
            while self._ends:
                self._ends.pop()()

    @contextmanager
    def _holding(self, hold: _Hold) -> Iterator[None]:
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._hold is None)
                self._hold = hold
            yield
        finally:
            self._let_go(hold)

    def _let_go(self, hold: _Hold) -> None:
        with self._changed:
            if self._hold is hold:
                self._hold = None
                self._changed.notify_all()

    # --- the thread that makes passes -----------------------------------------------------------------

    def _make_passes(self) -> None:
        while wishes := self._next():
            start = time.perf_counter()
            errors: Sequence[BaseException | None]
            try:
                with self._holding(_Hold(makes_pass=True)):
                    errors = self._make_pass(list(wishes), [wish.out for wish in wishes.values()])
            except BaseException as error:
                errors = [error] * len(wishes)
            seconds = time.perf_counter() - start
            self._patience = min(max(_LEAST_PATIENCE, _PATIENCE * seconds), _MOST_PATIENCE)
            self._deliver(wishes, errors)

    def _next(self) -> dict[int, _Wish]:
        """Who takes part in the next pass; nobody at the end."""
        with self._changed:
            while not self._wishes and not self._is_closed:
                if not self._expected:
                    release_threads()
                    self._is_rested = True
                    self._changed.notify_all()
                self._changed.wait()
            self._is_rested = False
            self._wait_for_others()
            wishes, self._wishes = self._wishes, {}
            return {} if self._is_closed else wishes

    def _wait_for_others(self) -> None:
        """Waits for lanes that are about to come back, a little while, and for whoever else wants the core."""
        deadline = time.perf_counter() + self._patience
        while self._is_anybody_about_to_come():
            if (left := deadline - time.perf_counter()) <= 0:
                self._expected.clear()
                break
            self._changed.wait(left)
        self._changed.wait_for(lambda: not self._visitors)

    def _is_anybody_about_to_come(self) -> bool:
        """Whether a lane is expected whose thread does not wait for another lane's pass."""
        waiting = {wish.thread for wish in self._wishes.values()}
        return any(thread not in waiting for thread in self._expected.values())

    def _deliver(self, wishes: dict[int, _Wish], errors: Sequence[BaseException | None]) -> None:
        """Tells everybody what has become of the pass."""
        with self._changed:
            for (lane, wish), error in zip(wishes.items(), errors, strict=True):
                wish.error = error
                if error is None and not wish.is_given_up:
                    self._expected[lane] = wish.thread
        for wish in wishes.values():
            wish.met.set()
