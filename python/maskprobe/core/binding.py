"""Loads the native core and gives it the llama.cpp functions it needs.

The core links no llama.cpp: it names the functions it wants, and their addresses come from the installed one. Knows
the C ABI's library and its error codes; leaves what calls do to the modules beside it.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from ..errors import BindingError, DecodeError, ModelError, SamplingError
from ..llamacpp.installed import batch_layout, function_address, llama_cpp, requirement

# The native library of this package.
CORE = Path(__file__).with_name(
    {"win32": "maskprobe.dll", "darwin": "libmaskprobe.dylib"}.get(sys.platform, "libmaskprobe.so")
)


def _load_core() -> tuple[Any, Any]:
    try:
        from ._abi import ffi

        return ffi, ffi.dlopen(str(CORE))
    except (ImportError, OSError) as error:
        raise BindingError(f"the native core {CORE.name} cannot be loaded ({error}). Reinstall maskprobe.") from error


ffi, lib = _load_core()


def addresses(required: Any) -> tuple[list[Any], list[Any], int]:
    """The names that the core asks for by index, their addresses in the installed libraries, and how many there are."""
    names: list[str] = []
    while (name := required(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    c_names = [ffi.new("char[]", name.encode()) for name in names]
    return c_names, [ffi.cast("void *", function_address(name)) for name in names], len(names)


def _bind() -> None:
    status = lib.mp_bind(*addresses(lib.mp_required_function), batch_layout())
    if status != lib.MP_OK:
        raise BindingError(
            f"llama-cpp-python {llama_cpp.__version__} does not fit: {ffi.string(lib.mp_last_error()).decode()}. "
            f'Mend it with: pip install "{requirement()}"'
        )


_bind()


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


def error_of(status: int, message: Any) -> Exception | None:
    """The exception that stands for a core status with its message; None for MP_OK."""
    return None if status == lib.MP_OK else _exceptions()[status](ffi.string(message).decode())


def check(status: int) -> None:
    """Raises the exception that stands for a core status other than MP_OK."""
    if (error := error_of(status, lib.mp_last_error())) is not None:
        raise error
