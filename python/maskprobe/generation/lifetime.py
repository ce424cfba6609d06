"""When a loaded model may be used: while it is open, by one caller at a time, in the process that loaded it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import BusyError, ClosedError, ForkError
from .engine import Engine


class Lifetime:
    """Holds an engine until :meth:`close`, or until nobody holds the lifetime."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._engine = engine
        self._closed = False

    def __del__(self) -> None:
        if not self._closed and not self._forked() and self._lock.acquire(blocking=False):
            self._free()

    def close(self) -> None:
        """Frees the engine; closing twice is fine, and does nothing in a fork of the process.

        Raises:
            BusyError: somebody is using it.
        """
        if not self._closed and not self._forked():
            with self.use():
                self._free()

    def _free(self) -> None:
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
        """The engine for one caller until the end of the block.

        Raises:
            BusyError: somebody else is using it.
            ClosedError, ForkError: it cannot be used here any more.
        """
        self.check_process()
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "this model is already generating; finish or close() that stream first, or use one object per thread"
            )
        try:
            self._check_open()
            yield self._engine
        finally:
            self._lock.release()

    def check_process(self) -> None:
        """Raises ForkError in a fork of the process: it has the memory, but not llama.cpp's threads and devices."""
        if self._forked():
            raise ForkError(f"this model was loaded in process {self._pid}; load it anew in each forked process")

    def _forked(self) -> bool:
        return os.getpid() != self._pid

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this model was closed; load it again")
