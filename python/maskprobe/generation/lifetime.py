"""When a loaded model may be used: while it is open, by as many as it has seats, in the process that loaded it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import BusyError, ClosedError, ForkError
from ..llamacpp.openmp import release_threads
from .engine import Engine
from .seats import Seat


class Lifetime:
    """Holds an engine until :meth:`close`, or until nobody holds the lifetime.

    Args:
        engine: which it closes.
        n_callers: so many generations may be under way, of which some wait where there are fewer seats.
        queue: further ones wait too.
    """

    def __init__(self, engine: Engine, n_callers: int = 1, *, queue: bool = False) -> None:
        release_threads()  # of the load, after which other threads may generate
        self._changed = threading.Condition()
        self._pid = os.getpid()
        self._engine = engine
        self._free = list(engine.seats.all)
        self._waiting: deque[object] = deque()  # who wait for a seat, in order
        self._n_callers = n_callers
        self._queue = queue
        self._n_taken = 0
        self._closed = False

    def __del__(self) -> None:
        if not self._closed and not self._forked() and len(self._free) == len(self._engine.seats.all):
            self._close_engine()

    def close(self) -> None:
        """Frees the engine; closing twice is fine, and does nothing in a fork of the process.

        Raises:
            BusyError: somebody is using it.
        """
        if not self._closed and not self._forked():
            with self.use():
                self._close_engine()

    def _close_engine(self) -> None:
        self._closed = True
        self._engine.close()

    @property
    def loaded(self) -> Engine:
        """The engine, for what stays true when it is closed."""
        return self._engine

    @property
    def engine(self) -> Engine:
        """The engine while it is open.

        Raises:
            ClosedError, ForkError: it cannot be used here any more.
        """
        self.check_process()
        self._check_open()
        return self._engine

    @contextmanager
    def use(self) -> Iterator[Engine]:
        """The engine for one caller alone until the end of the block.

        Raises:
            BusyError: somebody else is using it.
            ClosedError, ForkError: it cannot be used here any more.
        """
        self.check_process()
        with self._changed:
            if len(self._free) < len(self._engine.seats.all):
                raise self._busy()
            seats, self._free = self._free, []
            for seat in seats:
                seat.thread = threading.get_ident()
        try:
            self._check_open()
            yield self._engine
        finally:
            self._give_back(seats)

    @contextmanager
    def sit(self, prompt: Sequence[int]) -> Iterator[tuple[Engine, Seat]]:
        """The engine and a seat for a generation from this prompt, until the end of the block.

        Raises:
            BusyError: all seats are taken, and nobody may wait.
            ClosedError, ForkError: it cannot be used here any more.
        """
        self.check_process()
        seat = self._take(prompt)
        try:
            self._check_open()
            yield self._engine, seat
        finally:
            self._give_back([seat])

    def _take(self, prompt: Sequence[int]) -> Seat:
        self._engine.seats.check_thread()
        with self._changed:
            if not self._free or self._waiting:
                self._wait()
            seat = self._engine.seats.choose(self._free, prompt)
            self._free.remove(seat)
            self._n_taken += 1
            seat.thread, seat.used = threading.get_ident(), self._n_taken
            return seat

    def _wait(self) -> None:
        """Waits for a free seat, behind those who wait already."""
        n_seats = len(self._engine.seats.all)
        mine = all(seat.thread == threading.get_ident() for seat in self._engine.seats.all)
        if mine or not (self._queue or n_seats + len(self._waiting) < self._n_callers):
            raise self._busy()
        ticket = object()
        self._waiting.append(ticket)
        try:
            self._changed.wait_for(lambda: self._free and self._waiting[0] is ticket)
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()

    def _give_back(self, seats: Sequence[Seat]) -> None:
        release_threads()
        with self._changed:
            for seat in seats:
                seat.thread = 0
            self._free += seats
            self._changed.notify_all()

    def _busy(self) -> BusyError:
        if len(self._engine.seats.all) == 1 and self._n_callers == 1:
            return BusyError(
                "this model is already generating; finish or close() that stream first, or use one object per thread"
            )
        return BusyError(
            f"this model is generating as often as it may, {self._n_callers} times at once; finish or close() a stream "
            "first, or load it with more n_parallel or queue=True"
        )

    def check_process(self) -> None:
        """Raises ForkError in a fork of the process: it has the memory, but not llama.cpp's threads and devices."""
        if self._forked():
            raise ForkError(f"this model was loaded in process {self._pid}; load it anew in each forked process")

    def _forked(self) -> bool:
        return os.getpid() != self._pid

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this model was closed; load it again")
