"""When a loaded model may be used: while it is open, by one caller at a time, in the process that loaded it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from typing_extensions import Self

from ..errors import BusyError, ClosedError, ForkError
from .engine import Engine


class Lifetime:
    """Holds an engine from :meth:`_open` to :meth:`close`."""

    _engine: Engine

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = True

    def _open(self, engine: Engine) -> None:
        self._engine = engine
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not self._forked() and self._lock.acquire(blocking=False):
            self._free()

    def close(self) -> None:
        """Frees the model and its context; closing twice is fine, and does nothing in a fork of the process.

        Raises:
            BusyError: a generation is running.
        """
        if not self._closed and not self._forked():
            with self._entered():
                self._free()

    def _free(self) -> None:
        self._closed = True
        self._engine.close()

    @property
    def engine(self) -> Engine:
        """The model's session and what is known of it; for tools that find out more."""
        self._check_process()
        self._check_open()
        return self._engine

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """Holds the object for one caller."""
        self._check_process()
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "this model is already generating; finish or close() that stream first, or use one object per thread"
            )
        try:
            self._check_open()
            yield
        finally:
            self._lock.release()

    def _forked(self) -> bool:
        return os.getpid() != self._pid

    def _check_process(self) -> None:
        # A fork has the memory, but not llama.cpp's threads and devices.
        if self._forked():
            raise ForkError(f"this model was loaded in process {self._pid}; load it anew in each forked process")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this model was closed; load it again")
