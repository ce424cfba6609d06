"""llama.cpp's log: let through or not, and its error lines collected for the exceptions that tell them."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator

from .installed import llama_cpp

_ERROR_LEVEL = 4  # ggml_log_level

_capture = threading.local()  # errors: lines of this thread's capture; verbose: let everything through


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _collect(level: int, text: bytes, user_data: object) -> None:
    if level == _ERROR_LEVEL and hasattr(_capture, "errors"):
        _capture.errors.append(text.decode(errors="replace").strip())
    if getattr(_capture, "verbose", False):
        print(text.decode(errors="replace"), end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def captured_log(verbose: bool) -> Iterator[list[str]]:
    """Collects llama.cpp's error lines, and lets its log through only when verbose. May be nested."""
    outer = dict(vars(_capture))
    llama_cpp._logger.set_verbose(verbose)
    _capture.errors, _capture.verbose = [], verbose
    # One callback that is never freed: loads in other threads may log through it until they are done.
    llama_cpp.llama_log_set(_collect, ctypes.c_void_p(0))
    try:
        yield _capture.errors
    finally:
        vars(_capture).clear()
        vars(_capture).update(outer)
        if not outer:
            llama_cpp.llama_log_set(llama_cpp._logger.llama_log_callback, ctypes.c_void_p(0))


def reason(errors: list[str]) -> str:
    """Why llama.cpp failed, as far as it said so."""
    return errors[-1] if errors else "no reason given (see verbose=True)"
