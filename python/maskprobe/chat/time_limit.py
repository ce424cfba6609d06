"""A time limit for Python code that may not end, such as the chat template in a model file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent import futures
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

THREAD = "maskprobe-time-limit"
_AGAIN = 0.5  # seconds; what is raised in a finalizer or in a callback of the garbage collector is swallowed there


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call returns that has so many seconds. Ctrl-C is not held up by it.

    It runs in a thread of its own, which is ended between two steps of the interpreter when the time is up, or a little
    later. What the interpreter does in one step, a huge power or text say, is not ended, and where that keeps the
    interpreter's lock everybody waits for it.

    Raises:
        TimeoutError: the time is up.
    """
    answer: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)
        except SystemExit:
            pass  # the time is up

    thread = Thread(target=run, name=THREAD, daemon=True)
    try:
        thread.start()
        return answer.result(seconds)
    except futures.TimeoutError:  # the built-in one only since Python 3.11
        raise TimeoutError(f"it did not end within {seconds:g} s") from None
    finally:
        if not answer.done():
            Thread(target=_end, args=(thread,), name=THREAD, daemon=True).start()


def _end(thread: Thread) -> None:
    """Raises SystemExit in a thread, which no template can catch, until it has ended."""
    while thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        thread.join(_AGAIN)
