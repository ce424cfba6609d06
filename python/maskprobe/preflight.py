"""What makes llama.cpp end the process instead of refusing a model file, looked for before it loads one.

The file is parsed by llama.cpp's own GGUF reader, which takes any bytes; values of a kind that the loader refuses by
itself are left to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .binding import _address_of, llama_cpp
from .errors import BindingError, ModelError

_U32, _F32, _STRING, _ARRAY = 4, 6, 8, 9  # gguf_type
_MOST_LAYERS, _MOST_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_MADE_UP = ("none", "no_vocab", "hybriddna")  # tokenizers whose tokens are not those of the file


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def _function(name: str, result: Any, *parameters: Any) -> Callable[..., Any]:
    address = _address_of(name, llama_cpp)
    if not address:
        raise BindingError(f"llama.cpp lacks {name}")
    return ctypes.CFUNCTYPE(result, *parameters)(address)


_ptr, _int, _i64, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_init = _function("gguf_init_from_file", _ptr, _text, _InitParams)
_free = _function("gguf_free", None, _ptr)
_find_key = _function("gguf_find_key", _i64, _ptr, _text)
_kv_type = _function("gguf_get_kv_type", _int, _ptr, _i64)
_arr_type = _function("gguf_get_arr_type", _int, _ptr, _i64)
_arr_n = _function("gguf_get_arr_n", ctypes.c_size_t, _ptr, _i64)
_arr_str = _function("gguf_get_arr_str", _text, _ptr, _i64, ctypes.c_size_t)
_val_u32 = _function("gguf_get_val_u32", ctypes.c_uint32, _ptr, _i64)
_val_f32 = _function("gguf_get_val_f32", ctypes.c_float, _ptr, _i64)
_val_str = _function("gguf_get_val_str", _text, _ptr, _i64)
_n_tensors = _function("gguf_get_n_tensors", _i64, _ptr)
_tensor_name = _function("gguf_get_tensor_name", _text, _ptr, _i64)
_tensor_type = _function("gguf_get_tensor_type", _int, _ptr, _i64)
_block_size = _function("ggml_blck_size", _i64, _int)


def check_model(path: Path) -> None:
    """Raises ModelError for a file on which llama.cpp would abort. A file that cannot be parsed is left to it."""
    with _opened(path) as header:
        if header is None:
            return
        found = next(_faults(header), None)
    if found is not None:
        raise ModelError(f"{path} cannot be used: {found}. Is the file damaged?")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Header | None]:
    handle = _init(str(path).encode("utf-8", "surrogateescape"), _InitParams(True, None))
    try:
        yield _Header(handle) if handle else None
    finally:
        if handle:
            _free(handle)


class _Header:
    """Metadata by key, None for what is absent or of another type."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.architecture = self.text("general.architecture") or ""

    def own(self, key: str) -> str:
        """A key of the architecture."""
        return f"{self.architecture}.{key}"

    def number(self, key: str) -> int | None:
        value: int | None = self._value(key, _U32, _val_u32)
        return value

    def real(self, key: str) -> float | None:
        value: float | None = self._value(key, _F32, _val_f32)
        return value

    def text(self, key: str) -> str | None:
        text: bytes | None = self._value(key, _STRING, _val_str)
        return None if text is None else text.decode(errors="replace")

    def texts(self, key: str) -> list[bytes]:
        at = _find_key(self.handle, key.encode())
        if at < 0 or _kv_type(self.handle, at) != _ARRAY or _arr_type(self.handle, at) != _STRING:
            return []
        return [_arr_str(self.handle, at, i) for i in range(_arr_n(self.handle, at))]

    def _value(self, key: str, kind: int, read: Callable[..., Any]) -> Any:
        at = _find_key(self.handle, key.encode("utf-8", "replace"))
        return read(self.handle, at) if at >= 0 and _kv_type(self.handle, at) == kind else None


def _faults(header: _Header) -> Iterator[str]:
    layers = header.number(header.own("block_count"))
    if layers is not None and not 0 < layers <= _MOST_LAYERS:
        yield f"it says it has {layers} layers, llama.cpp takes 1..{_MOST_LAYERS}"
    yield from _expert_faults(header)
    for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon", "group_norm_epsilon"):
        epsilon = header.real(header.own(f"attention.{name}"))
        if epsilon is not None and not 0.0 <= epsilon < math.inf:
            yield f"its {name} is {epsilon:g}"
    scaling = header.text(header.own("rope.scaling.type"))
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        yield f"its rope.scaling.type is {scaling!r}, llama.cpp knows {', '.join(_ROPE_SCALINGS)}"
    tokens = header.texts("tokenizer.ggml.tokens") if header.text("tokenizer.ggml.model") not in _MADE_UP else []
    if len(set(tokens)) < len(tokens) - tokens.count(b""):  # llama.cpp gives empty ones names of their own
        yield "its vocabulary holds a token twice"
    yield from _tensor_faults(header)


def _expert_faults(header: _Header) -> Iterator[str]:
    experts = header.number(header.own("expert_count")) or 0
    if header.architecture.startswith("hunyuan") and experts <= 1:
        return  # llama.cpp takes these for dense
    used = header.number(header.own("expert_used_count"))
    groups = header.number(header.own("expert_group_count")) or 0
    used_groups = header.number(header.own("expert_group_used_count")) or 0
    if experts > _MOST_EXPERTS:
        yield f"it says it has {experts} experts, llama.cpp takes at most {_MOST_EXPERTS}"
    if used is not None and (used > experts or (experts and not used)):
        yield f"it says it uses {used} of {experts} experts"
    if groups and (groups >= experts or (groups > 1 and (experts % groups or not 0 < used_groups < groups))):
        yield f"it says it uses {used_groups} of {groups} groups of {experts} experts"


def _tensor_faults(header: _Header) -> Iterator[str]:
    for i in range(_n_tensors(header.handle)):
        name = _tensor_name(header.handle, i)
        if name.endswith((b"norm.weight", b".bias")) and _block_size(_tensor_type(header.handle, i)) != 1:
            yield f"its tensor {name.decode(errors='replace')} is quantized, which none of its kind can be"
