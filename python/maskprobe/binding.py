"""Loads the native core and gives it the llama.cpp functions it needs.

The core links no llama.cpp. It names the functions it wants; their addresses come from the library that
``llama_cpp`` has loaded, so whatever backend the user's llama-cpp-python was built with is what runs.
Knows shared libraries and versions; nothing of models or generation.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import BindingError, DecodeError, ModelError, SamplingError

# The range whose C declarations the tests hold the core to. Upper bound exclusive.
SUPPORTED_LLAMA_CPP = ((0, 3, 35), (0, 3, 37))

# The native library of this package.
CORE = Path(__file__).with_name(
    {"win32": "maskprobe.dll", "darwin": "libmaskprobe.dylib"}.get(sys.platform, "libmaskprobe.so")
)


def _version_text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def requirement() -> str:
    """The supported range of llama-cpp-python as a pip requirement."""
    low, high = map(_version_text, SUPPORTED_LLAMA_CPP)
    return f"llama-cpp-python>={low},<{high}"


def version_numbers(version: str) -> tuple[int, ...]:
    """The three numbers of a version of llama-cpp-python, without what a build adds to them."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())


def _import_llama_cpp() -> Any:
    remedy = f'pip install "{requirement()}"'
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise BindingError(f"llama-cpp-python cannot be imported ({error}). Mend it with: {remedy}") from error
    installed = str(llama_cpp.__version__)
    low, high = SUPPORTED_LLAMA_CPP
    if not low <= version_numbers(installed) < high:
        from . import __version__

        raise BindingError(
            f"maskprobe {__version__} works with {requirement()}, but {installed} is installed. Mend it with: {remedy}"
        )
    return llama_cpp


def _found(name: str, llama_cpp: Any) -> Any:
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


def _address_of(name: str, llama_cpp: Any) -> int:
    """The address of a llama.cpp or ggml function in the libraries that llama_cpp has loaded, 0 if absent."""
    return ctypes.cast(_found(name, llama_cpp), ctypes.c_void_p).value or 0


def _batch_layout(llama_cpp: Any) -> list[int]:
    batch = llama_cpp.llama_batch
    fields = ("n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits")
    return [ctypes.sizeof(batch), *(getattr(batch, field).offset for field in fields)]


def _load_core() -> tuple[Any, Any]:
    try:
        from ._abi import ffi

        return ffi, ffi.dlopen(str(CORE))
    except (ImportError, OSError) as error:
        raise BindingError(f"the native core {CORE.name} cannot be loaded ({error}). Reinstall maskprobe.") from error


def _bind() -> tuple[Any, Any, Any]:
    llama_cpp = _import_llama_cpp()
    ffi, lib = _load_core()
    names: list[str] = []
    while (name := lib.mp_required_function(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    c_names = [ffi.new("char[]", name.encode()) for name in names]
    addresses = [ffi.cast("void *", _address_of(name, llama_cpp)) for name in names]
    if lib.mp_bind(c_names, addresses, len(names), _batch_layout(llama_cpp)) != lib.MP_OK:
        raise BindingError(
            f"llama-cpp-python {llama_cpp.__version__} does not fit: {ffi.string(lib.mp_last_error()).decode()}. "
            f'Mend it with: pip install "{requirement()}"'
        )
    return llama_cpp, ffi, lib


llama_cpp, ffi, lib = _bind()


@functools.cache
def _exceptions() -> dict[int, type[Exception]]:
    return {
        lib.MP_ERROR_ARGUMENT: ValueError,
        lib.MP_ERROR_FILE: ModelError,
        lib.MP_ERROR_DECODE: DecodeError,
        lib.MP_ERROR_MEMORY: MemoryError,
        lib.MP_ERROR_BINDING: BindingError,
        lib.MP_ERROR_SAMPLING: SamplingError,
    }


def check(status: int) -> None:
    """Raises the exception that stands for a core status other than MP_OK."""
    if status != lib.MP_OK:
        raise _exceptions()[status](ffi.string(lib.mp_last_error()).decode())


def function_address(name: str) -> int:
    """Where a llama.cpp or ggml function is in the loaded libraries, 0 if they lack it."""
    return _address_of(name, llama_cpp)


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
        raise BindingError(f"the loaded llama.cpp has no function {name}")
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def address_of(pointer: Any) -> int:
    """The address in a ctypes pointer, or in the plain integer that ctypes makes of an opaque one."""
    return pointer if isinstance(pointer, int) else ctypes.cast(pointer, ctypes.c_void_p).value or 0
