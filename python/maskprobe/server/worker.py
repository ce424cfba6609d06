"""The one thread that uses the model, and the queue in front of it.

Knows jobs, their order and their end; leaves HTTP and dictionaries to others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from .errors import ApiError
from .metrics import Metrics

Part = dict[str, Any]


class Dropped(Exception):  # noqa: N818 - no error: nobody waits for the answer any more
    """The job's client is gone."""


class Job:
    """A request for the model, and the parts of the answer on their way to the event loop.

    The way is as long as it must be: an answer is no longer than the context, and a client that reads slowly must
    not hold the model.

    Args:
        run: makes the answer, in the model's thread, and calls what it is given before every pass.
    """

    def __init__(self, run: Callable[[Callable[[], None]], Iterable[Part]]) -> None:
        self.run = run
        self.stop: Exception | None = None  # why the job must end
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Part | Exception | None] = asyncio.Queue()

    def put(self, part: Part | Exception | None) -> None:
        """Sends a part, an error or, with None, the end, from the model's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)

    async def next(self) -> Part | None:
        """The next part; None at the end. Raises what the model raised."""
        part = await self._parts.get()
        if isinstance(part, Exception):
            raise part
        return part


class Worker:
    """Runs jobs one after the other.

    Args:
        limit: most jobs that may wait.
        metrics: count what was done.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._stopping = False
        self._changed = threading.Condition()
        # A process must be able to end whatever the model does.
        self._thread = threading.Thread(target=self._work, name="maskprobe-model", daemon=True)
        metrics.watch(lambda: (int(self._running is not None), len(self._waiting)))

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job.

        Raises:
            ApiError: the queue is full, or the server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise _stopping()
            if len(self._waiting) + (self._running is not None) > self._limit:
                self._metrics.count("refused")
                raise ApiError(
                    429,
                    f"the model is busy and {len(self._waiting)} requests wait; try again later",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self._waiting.append(job)
            self._changed.notify()

    def drop(self, job: Job) -> None:
        """Ends a job that nobody waits for: at once if it is queued, before its next pass if it runs."""
        with self._changed:
            if job is self._running and job.stop is None:
                job.stop = Dropped()
            elif job in self._waiting:
                self._waiting.remove(job)
                job.put(Dropped())
            else:
                return
        self._metrics.count("dropped")

    def stop(self) -> None:
        """Ends all jobs, the running one before its next pass, and the thread with them."""
        with self._changed:
            self._stopping = True
            for job in self._waiting:
                job.put(_stopping())
            self._waiting.clear()
            if self._running is not None:
                self._running.stop = self._running.stop or _stopping()
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Waits for the thread's end, so long at most. Returns whether it has ended."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            end: Exception | None = None
            try:
                for part in job.run(partial(self._before_pass, job)):
                    self._metrics.add(part.get("timings"))
                    job.put(part)
            except Exception as error:
                end = error
                if error is not job.stop:
                    self._metrics.count("failed")
            with self._changed:
                self._running = None
            job.put(end)

    def _before_pass(self, job: Job) -> None:
        if job.stop is not None:
            raise job.stop
        self._metrics.count_decode()

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            self._running = self._waiting.popleft() if self._waiting else None
            return self._running


def _stopping() -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down")
