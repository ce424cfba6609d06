"""Does a llama.cpp that nobody has tested fit the package, as far as can be seen without running a model?

Knows names, signatures, layouts and defaults; leaves what functions do to the self-test at load, and the core's list of
functions to the core.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Iterator
from typing import Any

from .used import DEFAULTS, FIELDS, FUNCTIONS, LAYOUTS, NAMES

_KINDS = dict.fromkeys("bBhHiIlLqQ", "int") | dict.fromkeys("fd", "float") | {"?": "bool"}
_Q8_0, _BLOCK = 8, 32  # a ggml_type, and the values in a block of it


def misfits(llama_cpp: Any, address_of: Callable[[str], int]) -> list[str]:
    """What differs from the tested versions in what the package uses; none if nothing is seen to.

    llama_cpp speaks for its library here: its declarations come from the headers that the library was built from. What
    it does not declare is asked of the library itself, or is left to the self-test: parameters of gguf_* and ggml_*
    functions, gguf_init_params, and what any function does.

    Args:
        llama_cpp: the module.
        address_of: where a function of its libraries is, 0 if they lack it.
    """
    found = [*_missing_names(llama_cpp), *_other_signatures(llama_cpp), *_other_structs(llama_cpp)]
    # Functions are called only where their declarations fit.
    return found or [*_odd_defaults(llama_cpp), *_odd_type_traits(address_of("ggml_get_type_traits"))]


def signature(declared: Any) -> str | None:
    """Result and parameters of a function or a type of callbacks, None if it is neither.

    The signs of integers do not count: the same numbers are passed either way.
    """
    if isinstance(declared, type):
        result, parameters = getattr(declared, "_restype_", None), getattr(declared, "_argtypes_", None)
    else:
        result, parameters = getattr(declared, "restype", None), getattr(declared, "argtypes", None)
    if not isinstance(parameters, (list, tuple)):
        return None
    return f"{_kind(result)}({', '.join(map(_kind, parameters))})"


def layout(struct: Any) -> str:
    """The fields of a ctypes struct with their types, in order."""
    return ", ".join(f"{_kind(field[1])} {field[0]}" for field in struct._fields_)


def _kind(type_: Any) -> str:
    if type_ is None:
        return "void"
    if issubclass(type_, ctypes.Structure):
        return str(type_.__name__)
    kind = _KINDS.get(str(getattr(type_, "_type_", "")))
    return f"{kind}{8 * ctypes.sizeof(type_)}" if kind else "ptr"


def _missing_names(llama_cpp: Any) -> Iterator[str]:
    for name in NAMES:
        try:
            operator.attrgetter(name)(llama_cpp)
        except AttributeError:
            yield f"llama_cpp lacks {name}"


def _other_signatures(llama_cpp: Any) -> Iterator[str]:
    for name, expected in FUNCTIONS.items():
        if not hasattr(llama_cpp, name):
            yield f"llama_cpp lacks {name}"
        elif (found := signature(getattr(llama_cpp, name))) != expected:
            yield f"{name} is declared as {found}, expected {expected}"


def _other_structs(llama_cpp: Any) -> Iterator[str]:
    for name in (*FIELDS, *LAYOUTS):
        if not hasattr(llama_cpp, name):
            yield f"llama_cpp lacks {name}"
            continue
        struct = getattr(llama_cpp, name)
        fields = {field[0] for field in struct._fields_}
        yield from (f"{name} lacks the field {field}" for field in FIELDS.get(name, ()) if field not in fields)
        if name in LAYOUTS and (found := layout(struct)) != LAYOUTS[name]:
            yield f"{name} is laid out as {found}, expected {LAYOUTS[name]}"


def _odd_defaults(llama_cpp: Any) -> Iterator[str]:
    for function, ranges in DEFAULTS.items():
        params = getattr(llama_cpp, function)()
        for field, (low, high) in ranges.items():
            if not low <= (value := getattr(params, field)) <= high:
                yield f"{function}() has {field}={value}, expected {low} to {high}"


class _TypeTraits(ctypes.Structure):
    """ggml_type_traits as in native/src/llama_api.h."""

    _fields_ = (
        ("type_name", ctypes.c_void_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


def _odd_type_traits(address: int) -> Iterator[str]:
    """llama_cpp does not declare this struct, but what stands in it for a type of weights is known."""
    if not address:
        yield "ggml_get_type_traits is missing"
        return
    traits = ctypes.CFUNCTYPE(ctypes.POINTER(_TypeTraits), ctypes.c_int)(address)(_Q8_0).contents
    if (traits.blck_size, traits.type_size, traits.is_quantized) != (_BLOCK, _BLOCK + 2, True) or not traits.to_float:
        yield "ggml_type_traits is laid out differently"
        return
    block = (ctypes.c_uint8 * 1024)(0x00, 0x3C, *range(_BLOCK))  # the scale 1 in half precision, then the values
    values = (ctypes.c_float * 1024)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(traits.to_float)(block, values, _BLOCK)
    if list(values[:_BLOCK]) != list(map(float, range(_BLOCK))):
        yield "ggml_type_traits.to_float does not read Q8_0 weights"
