"""GGUF files by llama.cpp's own reader, which takes any bytes: metadata, and what tensors there are.

Knows the format; leaves what a file must hold to the callers.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .installed import function

_U32, _F32, _STRING, _ARRAY = 4, 6, 8, 9  # gguf_type
_MAX_DIMS = 4  # GGML_MAX_DIMS


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


_ptr, _int, _i64, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_size = ctypes.c_size_t
_init = function("gguf_init_from_file", _ptr, _text, _InitParams)
_free = function("gguf_free", None, _ptr)
_find_key = function("gguf_find_key", _i64, _ptr, _text)
_kv_type = function("gguf_get_kv_type", _int, _ptr, _i64)
_arr_type = function("gguf_get_arr_type", _int, _ptr, _i64)
_arr_n = function("gguf_get_arr_n", _size, _ptr, _i64)
_arr_str = function("gguf_get_arr_str", _text, _ptr, _i64, _size)
_val_u32 = function("gguf_get_val_u32", ctypes.c_uint32, _ptr, _i64)
_val_f32 = function("gguf_get_val_f32", ctypes.c_float, _ptr, _i64)
_val_str = function("gguf_get_val_str", _text, _ptr, _i64)
_n_tensors = function("gguf_get_n_tensors", _i64, _ptr)
_tensor_name = function("gguf_get_tensor_name", _text, _ptr, _i64)
_tensor_type = function("gguf_get_tensor_type", _int, _ptr, _i64)
_tensor_shape = function("gguf_get_tensor_ne", ctypes.POINTER(_i64 * _MAX_DIMS), _ptr, _i64)
_tensor_offset = function("gguf_get_tensor_offset", _size, _ptr, _i64)
_data_offset = function("gguf_get_data_offset", _size, _ptr)
_block_size = function("ggml_blck_size", _i64, _int)


@dataclass(frozen=True)
class Tensor:
    """A tensor, and where in the file its values begin."""

    name: str
    type: int  # ggml_type
    shape: tuple[int, ...]  # the fastest dimension first, ones at the end left out
    offset: int

    @property
    def is_quantized(self) -> bool:
        """Whether its values come in blocks."""
        return bool(_block_size(self.type) != 1)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Header | None]:
    """The header of a file, None if it cannot be parsed."""
    handle = _init(str(path).encode("utf-8", "surrogateescape"), _InitParams(True, None))
    try:
        yield Header(handle) if handle else None
    finally:
        if handle:
            _free(handle)


class Header:
    """Metadata by key, None for what is absent or of another type."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.architecture = self.text("general.architecture") or ""

    def own(self, key: str) -> str:
        """A key of the architecture."""
        return f"{self.architecture}.{key}"

    def __contains__(self, key: str) -> bool:
        return bool(_find_key(self._handle, key.encode()) >= 0)

    def number(self, key: str) -> int | None:
        value: int | None = self._value(key, _U32, _val_u32)
        return value

    def real(self, key: str) -> float | None:
        value: float | None = self._value(key, _F32, _val_f32)
        return value

    def text(self, key: str) -> str | None:
        text: bytes | None = self._value(key, _STRING, _val_str)
        return None if text is None else text.decode(errors="replace")

    def length(self, key: str) -> int:
        """How many values an array has, 0 if there is none."""
        at = _find_key(self._handle, key.encode())
        return _arr_n(self._handle, at) if at >= 0 and _kv_type(self._handle, at) == _ARRAY else 0

    def texts(self, key: str) -> list[bytes]:
        at = _find_key(self._handle, key.encode())
        if at < 0 or _kv_type(self._handle, at) != _ARRAY or _arr_type(self._handle, at) != _STRING:
            return []
        return [_arr_str(self._handle, at, i) for i in range(_arr_n(self._handle, at))]

    def _value(self, key: str, kind: int, read: Callable[..., Any]) -> Any:
        at = _find_key(self._handle, key.encode("utf-8", "replace"))
        return read(self._handle, at) if at >= 0 and _kv_type(self._handle, at) == kind else None

    def tensors(self) -> Iterator[Tensor]:
        """All tensors of the file."""
        start = _data_offset(self._handle)
        for i in range(_n_tensors(self._handle)):
            shape = list(_tensor_shape(self._handle, i).contents)
            while len(shape) > 1 and shape[-1] == 1:
                shape.pop()
            name = _tensor_name(self._handle, i).decode(errors="replace")
            yield Tensor(name, _tensor_type(self._handle, i), tuple(shape), start + _tensor_offset(self._handle, i))
