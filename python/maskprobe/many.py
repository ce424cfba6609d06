"""Many generations at once on one object: a list of prompts, and tasks of an event loop.

Knows threads, tasks and their end; leaves passes and their sharing to generation.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

from typing_extensions import Unpack

from .chat.prompts import Prompt
from .generation.request import BeforePass, Options, checked_before_pass
from .loaded import LoadedModel
from .results import Chunk, Finished, Generation

Progress = Callable[[int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


class _GivenUp(Exception):  # noqa: N818 - no error: nobody waits for the answer any more
    """The generation was given up."""


class ManyMethods(LoadedModel):
    """generate_many, astream and agenerate."""

    def generate_many(
        self, prompts: Iterable[Prompt], *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> Generator[Finished, None, None]:
        """Generates a completion of each prompt, n_parallel at once, and yields them as they end.

        Prompts are taken from the iterable as there is room for them. What is wrong with one of them is its own
        error; the others go on. Closing the iterator gives up what is under way.

        Args:
            prompts: as :meth:`maskprobe.MaskProbeLlama.stream` takes one each.
            progress: called with the number of finished generations after each.
            options: those of :meth:`maskprobe.MaskProbeLlama.stream`, for all of them: each prompt is generated
                with the same seed, and an option that is wrong is the error of each.
        """
        gone = threading.Event()
        options["before_pass"] = until(gone, checked_before_pass(options.get("before_pass")))

        def generate(prompt: Prompt) -> Generation:
            return Generation.of_chunks(self.stream(prompt, **options))

        n_done = 0
        with closing(as_they_end(generate, prompts, self.n_parallel, gone)) as ended:
            for index, generation, error in ended:
                n_done += 1
                if progress is not None:
                    progress(n_done)
                yield Finished(index, generation, error)

    def astream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncGenerator[Chunk, None]:
        """As :meth:`maskprobe.MaskProbeLlama.stream`, for ``async for``. The generation runs in a thread of its own.

        Closing the generator, or cancelling the task, gives the generation up before its next pass.
        """
        gone = threading.Event()
        options["before_pass"] = until(gone, checked_before_pass(options.get("before_pass")))
        return _from_thread(self.stream(prompt, **options), gone)

    async def agenerate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation:
        """Generates a completion without holding up the event loop. Takes what :meth:`astream` takes."""
        return Generation.of_chunks([chunk async for chunk in self.astream(prompt, **options)])


def until(gone: threading.Event, before_pass: BeforePass) -> BeforePass:
    """What is called before passes, and ends them when gone is set."""

    def check() -> None:
        if gone.is_set():
            raise _GivenUp
        before_pass()

    return check


def as_they_end(
    call: Callable[[Item], Result], items: Iterable[Item], n_threads: int, gone: threading.Event
) -> Generator[tuple[int, Result | None, Exception | None], None, None]:
    """Calls a function with each item, in so many threads, and yields the results as they come, with their places.

    Items are taken as threads are free. gone is set when no more are wanted; who is called should end then.
    """
    waiting = iter(enumerate(items))
    running: dict[Future[Result], int] = {}
    with ThreadPoolExecutor(n_threads, "maskprobe-many") as threads:

        def begin() -> bool:
            for index, item in waiting:
                running[threads.submit(call, item)] = index
                return True
            return False

        try:
            while len(running) < n_threads and begin():
                pass
            while running:
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    index = running.pop(future)
                    begin()
                    error = future.exception()
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    yield index, None if error else future.result(), error
        finally:
            gone.set()


async def _from_thread(chunks: Iterator[Chunk], gone: threading.Event) -> AsyncGenerator[Chunk, None]:
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
    ended = asyncio.Event()

    def tell(call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(call)

    def work() -> None:
        end: BaseException | None = None
        try:
            with closing(chunks):  # type: ignore[type-var]
                for chunk in chunks:
                    tell(partial(parts.put_nowait, chunk))
        except BaseException as error:
            end = error
        tell(partial(parts.put_nowait, end))
        tell(ended.set)

    thread = threading.Thread(target=work, name="maskprobe-stream", daemon=True)
    thread.start()
    try:
        while (part := await parts.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part
    finally:
        gone.set()
        await ended.wait()  # the model is free again
