"""The llama-cpp-python that is installed: is it one we know or one that fits, and where are its functions?

Knows versions and shared libraries; nothing of models, and nothing of our own native core. Whatever backend the
user's llama-cpp-python was built with is what runs.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import BindingError
from . import fitting

# The range whose C declarations the tests hold the core to. Upper bound exclusive; what is newer must fit.
TESTED_LLAMA_CPP = ((0, 3, 35), (0, 3, 37))


def _version_text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def requirement() -> str:
    """The tested range of llama-cpp-python as a pip requirement."""
    low, high = map(_version_text, TESTED_LLAMA_CPP)
    return f"llama-cpp-python>={low},<{high}"


def known_versions() -> str:
    """The tested range in words."""
    low, above = TESTED_LLAMA_CPP
    return f"{_version_text(low)} to {_version_text((*above[:2], above[2] - 1))}"


def version_numbers(version: str) -> tuple[int, ...]:
    """The three numbers of a version of llama-cpp-python, without what a build adds to them."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())


def _import_llama_cpp() -> Any:
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        # What is there, and broken, pip would leave as it is.
        anew = "" if isinstance(error, ModuleNotFoundError) else "--force-reinstall --no-cache-dir --no-deps "
        remedy = f'pip install {anew}"{requirement()}"'
        raise BindingError(f"llama-cpp-python cannot be imported ({error}). Mend it with: {remedy}") from error
    installed = str(llama_cpp.__version__)
    low = TESTED_LLAMA_CPP[0]
    if version_numbers(installed) < low:
        raise BindingError(
            f"maskprobe {version('maskprobe')} works with llama-cpp-python>={_version_text(low)}, but {installed} is "
            f'installed. Mend it with: pip install "{requirement()}"'
        )
    return llama_cpp


llama_cpp = _import_llama_cpp()
# Whether it is newer than those that were tested: then it must fit, and prove itself when a model is loaded.
IS_NEWER = version_numbers(str(llama_cpp.__version__)) >= TESTED_LLAMA_CPP[1]
_NEWER = f"llama-cpp-python {llama_cpp.__version__} is newer than those maskprobe was tested with ({known_versions()})"
_notes = [f"{_NEWER}; all checks passed"] if IS_NEWER else []


def take_note() -> str | None:
    """What is to be said once of a newer version that has passed all checks, None if that is said or needless."""
    return _notes.pop() if _notes else None


def _found(name: str) -> Any:
    """A function of the libraries that llama_cpp has loaded, None if absent; never of others of the same name."""
    raw = llama_cpp.llama_cpp
    libraries: list[Callable[[], Any]] = [
        lambda: raw._lib,  # on Linux and macOS a look-up here reaches ggml too
        lambda: raw.load_shared_library("ggml-base", raw._base_path),
        lambda: raw.load_shared_library("ggml-cpu", raw._base_path),
    ]
    for library in libraries:
        try:
            return getattr(library(), name)
        except (AttributeError, FileNotFoundError, RuntimeError):
            continue
    return None


def function_address(name: str) -> int:
    """Where a llama.cpp or ggml function is in the loaded libraries, 0 if they lack it."""
    return ctypes.cast(_found(name), ctypes.c_void_p).value or 0


def batch_layout() -> list[int]:
    """The size of llama_batch, then the offsets of its fields."""
    batch = llama_cpp.llama_batch
    fields = ("n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits")
    return [ctypes.sizeof(batch), *(getattr(batch, field).offset for field in fields)]


def library_of(name: str) -> Path | None:
    """The file that a llama.cpp or ggml function was loaded from, None where that cannot be asked."""

    class _Info(ctypes.Structure):
        _fields_ = [
            ("path", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("symbol", ctypes.c_char_p),
            ("address", ctypes.c_void_p),
        ]

    try:
        dladdr = ctypes.CDLL(None).dladdr
    except (AttributeError, OSError, TypeError):  # Windows
        return None
    info = _Info()
    found = dladdr(ctypes.c_void_p(function_address(name)), ctypes.byref(info))
    return Path(os.fsdecode(info.path)) if found and info.path else None


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A llama.cpp or ggml function with these ctypes.

    Raises:
        BindingError: the loaded libraries lack it.
    """
    address = function_address(name)
    if address == 0:
        raise BindingError(f'the loaded llama.cpp has no function {name}. Mend it with: pip install "{requirement()}"')
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def address_of(pointer: Any) -> int:
    """The address in a ctypes pointer, or in the plain integer that ctypes makes of an opaque one."""
    return pointer if isinstance(pointer, int) else ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _check_fits() -> None:
    """Refuses a newer version in which something is seen to differ from the tested ones."""
    if IS_NEWER and (found := fitting.misfits(llama_cpp, function_address)):
        raise BindingError(
            f'{_NEWER} and does not fit: {"; ".join(found)}. Mend it with: pip install "{requirement()}"'
        )


_check_fits()
