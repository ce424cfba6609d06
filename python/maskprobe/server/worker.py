"""The threads that use the model and the queue in front of them, and one more for what only reads the model.

Knows jobs, their end and how many may wait; leaves their order to turns.py, HTTP and dictionaries to others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .errors import ApiError
from .metrics import Metrics
from .turns import Turns

Part = dict[str, Any]
BeforePass = Callable[[], None]
Begin = Callable[[BeforePass], Iterable[Part]]


class Dropped(Exception):  # noqa: N818 - no error: nobody waits for the answer any more
    """The job's client is gone."""


class Job:
    """A request for the model, and the parts of the answer on their way to the event loop.

    The way is as long as it must be: an answer is no longer than the context, and a client that reads slowly must
    not hold the model.

    Args:
        begin: checks the request and gives what makes the answer's parts; given what is called before every pass.
            It must leave the model's context alone, which only the parts may use.
        client: who has sent it.
    """

    def __init__(self, begin: Begin, client: str = "") -> None:
        self.client = client
        self.stop: Exception | None = None  # why the job must end
        self.checked = False  # or being checked
        self._begin = begin
        self._begun: Iterable[Part] | Exception | None = None
        self._beginning = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Part | Exception | None] = asyncio.Queue()

    def begin(self, before_pass: BeforePass) -> Iterable[Part]:
        """The parts of the answer. Whoever comes first begins; what that raised is raised to all."""
        with self._beginning:
            if self._begun is None:
                try:
                    self._begun = self._begin(before_pass)
                except Exception as error:
                    self._begun = error
        if isinstance(self._begun, Exception):
            raise self._begun
        return self._begun

    def put(self, part: Part | Exception | None) -> None:
        """Sends a part, an error or, with None, the end, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)

    async def next(self, seconds: float | None = None) -> Part | None:
        """The next part; None at the end. Raises what the model raised, or asyncio.TimeoutError."""
        part = await asyncio.wait_for(self._parts.get(), seconds)
        if isinstance(part, Exception):
            raise part
        return part


@dataclass
class Slot:
    """A place in which jobs run one after the other."""

    job: Job | None = None  # that runs
    task: int = -1  # which job of all that was the latest here, -1 = none yet
    thread: int = 0  # that runs them
    timings: Mapping[str, float] = field(default_factory=dict)  # of the latest answer


class Worker:
    """Runs jobs in a fair order, so many at once, and checks those that wait meanwhile.

    Args:
        limit: most jobs that may wait.
        metrics: count what was done.
        n_slots: jobs that run at once.
    """

    def __init__(self, limit: int, metrics: Metrics, n_slots: int = 1) -> None:
        self._limit = limit
        self._metrics = metrics
        self._waiting: Turns[Job] = Turns()
        self._reading: deque[Job] = deque()
        self.slots = [Slot() for _ in range(n_slots)]
        self._n_begun = 0
        self._stopping = False
        self._changed = threading.Condition()
        # A process must be able to end whatever the model does.
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name="maskprobe-model", daemon=True) for i in range(n_slots)
        ]
        self._threads.append(threading.Thread(target=self._read, name="maskprobe-reader", daemon=True))
        metrics.watch(lambda: ([slot.job is not None for slot in self.slots], len(self._waiting)))

    @property
    def n_running(self) -> int:
        """Jobs that run."""
        return sum(slot.job is not None for slot in self.slots)

    @property
    def busy(self) -> bool:
        """Whether every slot has a job."""
        return self.n_running == len(self.slots)

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job for the model. In a full queue it takes the place of a client's that has several more there.

        Raises:
            ApiError: the queue is full, or the server is stopping.
        """
        with self._changed:
            self._check_runs()
            if len(self._waiting) + self.n_running - len(self.slots) + 1 > self._limit:
                refusal, loser = self._refusal(len(self._waiting)), self._waiting.one_too_many(job.client)
                if loser is None:
                    raise refusal
                self._waiting.remove(loser)
                loser.put(refusal)
            self._waiting.add(job)
            self._changed.notify_all()

    async def read(self, call: Callable[[], Part]) -> Part:
        """What a call returns that reads the model (its vocabulary, its template) and does not use its context.

        Raises:
            ApiError: too many wait, or the server is stopping.
        """
        job = Job(lambda _: [call()])
        with self._changed:
            self._check_runs()
            if len(self._reading) > self._limit:
                raise self._refusal(len(self._reading))
            self._reading.append(job)
            self._changed.notify_all()
        part = await job.next()
        assert part is not None, "a call returns something"
        return part

    def drop(self, job: Job) -> None:
        """Ends a job that nobody waits for: at once if it is queued, before its next pass if it runs."""
        with self._changed:
            if job.stop is None and any(slot.job is job for slot in self.slots):
                job.stop = Dropped()
            elif job in self._waiting:
                self._waiting.remove(job)
                job.put(Dropped())
            else:
                return
        self._metrics.count("dropped")

    def stop(self) -> None:
        """Ends all jobs, running ones before their next pass, and the threads with them."""
        with self._changed:
            self._stopping = True
            for job in (*self._waiting, *self._reading):
                job.put(_stopping())
            self._waiting.clear()
            self._reading.clear()
            for slot in self.slots:
                if slot.job is not None:
                    slot.job.stop = slot.job.stop or _stopping()
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Waits for the threads' end, so long at most. Returns whether they have ended."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _check_runs(self) -> None:
        if self._stopping:
            raise _stopping()

    def _refusal(self, n_waiting: int) -> ApiError:
        """What the client of a request is told for which there is no room."""
        self._metrics.count("refused")
        return ApiError(
            429,
            f"the model is busy and {n_waiting} requests wait; try again later",
            code="queue_full",
            headers={"Retry-After": "1"},
        )

    # --- the model's threads --------------------------------------------------------------------------

    def _work(self, i: int) -> None:
        slot = self.slots[i]
        slot.thread = threading.get_ident()
        while (job := self._next(slot)) is not None:
            end: Exception | None = None
            try:
                for part in job.begin(partial(self._before_pass, job)):
                    if (timings := part.get("timings")) is not None:  # the last part of an answer
                        slot.timings = timings
                        self._metrics.add(timings, i)
                    job.put(part)
                self._metrics.count("finished")
            except Exception as error:
                end = error
                if error is not job.stop:
                    self._metrics.count("failed")
            with self._changed:
                slot.job = None
            job.put(end)

    def _before_pass(self, job: Job) -> None:
        if job.stop is not None:
            raise job.stop
        self._metrics.count_pass()

    def _next(self, slot: Slot) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._waiting:
                slot.job, slot.task = self._waiting.take(), self._n_begun
                self._n_begun += 1
            return slot.job

    # --- the reader's thread --------------------------------------------------------------------------

    def _read(self) -> None:
        while (act := self._next_to_read()) is not None:
            act()

    def _next_to_read(self) -> Callable[[], None] | None:
        """What is to be done: first what only reads, then a check of the first job that waits without one."""

        def unchecked() -> Job | None:
            return next((job for job in self._waiting if not job.checked), None)

        with self._changed:
            self._changed.wait_for(lambda: self._reading or unchecked() or self._stopping)
            if self._stopping:
                return None
            if self._reading:
                return partial(self._answer, self._reading.popleft())
            job = unchecked()
            assert job is not None, "waited for"
            job.checked = True
            return partial(self._check, job)

    def _answer(self, job: Job) -> None:
        try:
            for part in job.begin(_nothing):
                job.put(part)
        except Exception as error:
            job.put(error)

    def _check(self, job: Job) -> None:
        """What is wrong with a request is said before its turn."""
        try:
            job.begin(partial(self._before_pass, job))
        except Exception as error:
            with self._changed:
                if job not in self._waiting:
                    return  # its turn has come, or its client is gone
                self._waiting.remove(job)
            self._metrics.count("failed")
            job.put(error)


def _nothing() -> None:
    pass


def _stopping() -> ApiError:
    return ApiError(503, "the server is shutting down", code="shutting_down")
