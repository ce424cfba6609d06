"""Passes for several generations at once: whoever comes first makes one for all that are ready, the others wait for it.

Knows threads and lanes; what a pass does is the core's. All calls of the core for lanes of one pool go through here,
one at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..core.pool import Pool
from ..core.session import Pass
from ..errors import BusyError, DecodeError

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
    is_met: bool = False
    error: Exception | None = None


class Passes:
    """One pass at a time for the lanes of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._pid = os.getpid()
        self._core = threading.Lock()  # held by whoever calls the core
        self._changed = threading.Condition()
        self._wishes: dict[int, _Wish] = {}  # by lane
        self._expected: dict[int, int] = {}  # lanes that are about to come back, and the threads they were in
        self._is_led = False
        self._thread = 0  # that makes a pass now
        self._n_visitors = 0  # who want the core for something else
        self._patience = _LEAST_PATIENCE
        self.n_made = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The core, while no pass is made. A fork has it, but not the threads that make passes."""
        if os.getpid() != self._pid:
            yield
            return
        self._check_thread()
        with self._changed:
            self._n_visitors += 1
        try:
            with self._core:
                yield
        finally:
            with self._changed:
                self._n_visitors -= 1
                self._changed.notify_all()

    def step(self, lane: int, out: Pass) -> None:
        """A pass for a lane, and for all others that are ready. Without rows if the lane has to wait for room.

        Raises:
            DecodeError, SamplingError: as :meth:`maskprobe.core.session.Session.prefill` does; others go on.
            BusyError: what is called within a pass has called this.
        """
        self._check_thread()
        wish = _Wish(out)
        try:
            with self._changed:
                self._wishes[lane] = wish
                self._expected.pop(lane, None)
                self._changed.notify_all()
                self._changed.wait_for(lambda: wish.is_met or not self._is_led)
                if not wish.is_met:
                    self._is_led = True
            if not wish.is_met:
                self._lead()
        except BaseException:
            with self._changed:  # interrupted; a pass that takes part already ends by itself
                if self._wishes.get(lane) is wish:
                    del self._wishes[lane]
            raise
        if wish.error is not None:
            raise wish.error

    def leave(self, lane: int) -> None:
        """The lane's generation is over: nobody waits for it."""
        if os.getpid() == self._pid:
            with self._changed:
                self._expected.pop(lane, None)
                self._changed.notify_all()

    def _check_thread(self) -> None:
        if self._thread == threading.get_ident():
            raise BusyError("what is called within a pass, as logits processors are, cannot generate itself")

    def _lead(self) -> None:
        """Makes one pass for all that are ready."""
        wishes: dict[int, _Wish] = {}
        errors: list[BaseException | None] = []
        try:
            with self._changed:
                self._wait_for_others()
                wishes, self._wishes = self._wishes, {}
            start = time.perf_counter()
            with self._core:
                self._thread = threading.get_ident()
                try:
                    errors = self._pool.step(list(wishes), [wish.out for wish in wishes.values()])
                finally:
                    self._thread = 0
            seconds = time.perf_counter() - start
            self._patience = min(max(_LEAST_PATIENCE, _PATIENCE * seconds), _MOST_PATIENCE)
            self.n_made += 1
        finally:
            with self._changed:
                self._is_led = False
                self._deliver(wishes, errors)
                self._changed.notify_all()
        for error in errors:
            if error is not None and not isinstance(error, Exception):
                raise error  # it came up in this thread, whoever's draft it was: Ctrl-C

    def _wait_for_others(self) -> None:
        """Waits for lanes that are about to come back, a little while, and for whoever else wants the core."""
        me, deadline = threading.get_ident(), time.perf_counter() + self._patience
        while any(thread != me for thread in self._expected.values()):
            if (left := deadline - time.perf_counter()) <= 0:
                self._expected.clear()
                break
            self._changed.wait(left)
        self._changed.wait_for(lambda: self._n_visitors == 0)

    def _deliver(self, wishes: dict[int, _Wish], errors: Sequence[BaseException | None]) -> None:
        """Tells everybody what has become of the pass; without errors it was interrupted, and nobody knows."""
        if len(errors) != len(wishes):
            errors = [DecodeError("the pass was interrupted") for _ in wishes]
        for (lane, wish), error in zip(wishes.items(), errors, strict=True):
            wish.is_met, wish.error = True, error if isinstance(error, Exception) else None
            if wish.error is None:
                self._expected[lane] = wish.thread
