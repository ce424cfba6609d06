"""Single products and attentions through ggml, as graphs of llama.cpp have them.

Knows ggml's public functions in the libraries that llama_cpp has loaded; the check of our kernels and their tests are
made of it. Nothing of models.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from .installed import function

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Ids = npt.NDArray[np.int32]

_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_REPACK = b"CPU_REPACK"
_F32, _I32 = 0, 26
F16, Q8_0 = 1, 8
_pointer, _int64, _size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool)]


@functools.cache
def _ggml(name: str, result: Any, *arguments: Any) -> Any:
    return function(name, result, *arguments)


def quantize(type_: int, weights: Floats) -> npt.NDArray[np.uint8]:
    """Weights [n, k] as bytes of a ggml type."""
    n, k = weights.shape
    out = np.empty(n * int(_ggml("ggml_row_size", _size, ctypes.c_int, _int64)(type_, k)), np.uint8)
    _ggml("ggml_quantize_chunk", _size, ctypes.c_int, _pointer, _pointer, _int64, _int64, _int64, _pointer)(
        type_, weights.ctypes.data, out.ctypes.data, 0, n, k, None
    )
    return out


@functools.cache
def _cpu_buffer_type(repacked: bool) -> int:
    if not repacked:
        return int(_ggml("ggml_backend_cpu_buffer_type", _pointer)())
    device = _ggml("ggml_backend_dev_by_type", _pointer, ctypes.c_int)(_CPU)
    registry = _ggml("ggml_backend_dev_backend_reg", _pointer, _pointer)(device)
    look_up = _ggml("ggml_backend_reg_get_proc_address", _pointer, _pointer, ctypes.c_char_p)
    address = look_up(registry, b"ggml_backend_dev_get_extra_bufts")
    types = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(device)
    i = 0
    while types[i]:
        if _ggml("ggml_backend_buft_name", ctypes.c_char_p, _pointer)(types[i]) == _REPACK:
            return int(types[i])
        i += 1
    raise RuntimeError("ggml was built without repacked weights")


class Product:
    """Weights of a ggml type, in the buffer that llama.cpp would keep them in, times any number of rows.

    Args:
        type_: a ggml_type.
        weights: [n, k], or those of experts, [experts, n, k].
        repacked: in the CPU_REPACK buffer type's layout.
    """

    def __init__(self, type_: int, weights: Floats, *, repacked: bool) -> None:
        self.n, self.k = weights.shape[-2:]
        self._backend = _ggml("ggml_backend_cpu_init", _pointer)()
        self._context = _new_context()
        self._weights = _new_tensor(self._context, type_, *weights.shape)
        self._buffer = _ggml("ggml_backend_alloc_ctx_tensors_from_buft", _pointer, _pointer, _pointer)(
            self._context, _cpu_buffer_type(repacked)
        )
        _set(self._weights, quantize(type_, np.ascontiguousarray(weights, np.float32).reshape(-1, self.k)))

    def compute(self, x: Floats, n_threads: int = 1) -> Floats:
        """The products of rows [rows, k] with the weights, [rows, n]."""
        rows = len(x)
        context = _new_context()
        tensor = _new_tensor(context, _F32, rows, self.k)
        product = _ggml("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)(context, self._weights, tensor)
        out = np.empty((rows, self.n), np.float32)
        _compute(self._backend, context, product, [(tensor, np.ascontiguousarray(x, np.float32))], out, n_threads)
        return out

    def compute_experts(self, x: Floats, ids: Ids, n_threads: int = 1) -> Floats:
        """The products of rows with the weights of the experts that they are sent to.

        Args:
            x: [tokens, slots, k]; of one slot, its row goes to all experts of a token.
            ids: [tokens, slots], experts.
            n_threads: that compute it.

        Returns:
            [tokens, slots, n].
        """
        context = _new_context()
        inputs = [(_new_tensor(context, _F32, *x.shape), x), (_new_tensor(context, _I32, *ids.shape), ids)]
        product = _ggml("ggml_mul_mat_id", _pointer, *[_pointer] * 4)
        result = product(context, self._weights, *(tensor for tensor, _ in inputs))
        out = np.empty((*ids.shape, self.n), np.float32)
        _compute(self._backend, context, result, inputs, out, n_threads)
        return out

    def close(self) -> None:
        """Frees the weights."""
        _free(self._buffer, self._context)
        _ggml("ggml_backend_free", None, _pointer)(self._backend)


def attention(
    q: Floats,
    k: Floats,
    v: Floats,
    mask: Halves | None,
    *,
    scale: float = 1.0,
    cap: float = 0.0,
    sinks: Floats | None = None,
    type_: int = F16,
    n_threads: int = 1,
) -> Floats:
    """Flash attention.

    Args:
        q: [heads, rows, size].
        k, v: [heads of the cache, keys, size].
        mask: [rows, keys], added to the scores; None = nothing is.
        scale: of the scores.
        cap: scores are cap * tanh(score / cap); 0 = as they are.
        sinks: [heads], scores that take their share of the weights; None = there are none.
        type_: a ggml_type, which keys and values are turned into.
        n_threads: that compute it.

    Returns:
        [rows, heads, size].
    """
    backend = _ggml("ggml_backend_cpu_init", _pointer)()
    context = _new_context()
    inputs: list[tuple[Any, npt.NDArray[Any]]] = [(_new_tensor(context, _F32, *q.shape), q)]
    for values in (k, v):
        raw = quantize(type_, np.ascontiguousarray(values, np.float32).reshape(-1, values.shape[-1]))
        inputs.append((_new_tensor(context, type_, *values.shape), raw))
    tensors = [tensor for tensor, _ in inputs]
    tensors.append(None)
    if mask is not None:
        tensors[-1] = _new_tensor(context, F16, 1, *mask.shape)
        inputs.append((tensors[-1], mask))
    flash = _ggml("ggml_flash_attn_ext", _pointer, *[_pointer] * 5, *[ctypes.c_float] * 3)
    result = flash(context, *tensors, scale, 0.0, cap)
    if sinks is not None:
        inputs.append((_new_tensor(context, _F32, len(sinks)), sinks))
        _ggml("ggml_flash_attn_ext_add_sinks", None, _pointer, _pointer)(result, inputs[-1][0])
    heads, rows, size = q.shape
    out = np.empty((rows, heads, size), np.float32)
    _compute(backend, context, result, inputs, out, n_threads)
    _ggml("ggml_backend_free", None, _pointer)(backend)
    return out


def _compute(backend: Any, context: Any, result: Any, inputs: Any, out: Floats, n_threads: int) -> None:
    """Computes a tensor into an array and frees the context."""
    graph = _ggml("ggml_new_graph", _pointer, _pointer)(context)
    _ggml("ggml_build_forward_expand", None, _pointer, _pointer)(graph, result)
    buffer = _ggml("ggml_backend_alloc_ctx_tensors", _pointer, _pointer, _pointer)(context, backend)
    for tensor, values in inputs:
        _set(tensor, values)
    _ggml("ggml_backend_cpu_set_n_threads", None, _pointer, ctypes.c_int)(backend, n_threads)
    status = _ggml("ggml_backend_graph_compute", ctypes.c_int, _pointer, _pointer)(backend, graph)
    assert status == 0, status
    _ggml("ggml_backend_tensor_get", None, _pointer, _pointer, _size, _size)(result, out.ctypes.data, 0, out.nbytes)
    _free(buffer, context)


def _new_context() -> Any:
    params = _InitParams(1 << 20, None, True)
    return _ggml("ggml_init", _pointer, _InitParams)(params)


def _new_tensor(context: Any, type_: int, *shape: int) -> Any:
    """A tensor of up to three dimensions, the last of which ggml calls the first."""
    make = _ggml("ggml_new_tensor_3d", _pointer, _pointer, ctypes.c_int, _int64, _int64, _int64)
    return make(context, type_, *reversed((1,) * (3 - len(shape)) + shape))


def _set(tensor: Any, values: npt.NDArray[Any]) -> None:
    values = np.ascontiguousarray(values)
    _ggml("ggml_backend_tensor_set", None, _pointer, _pointer, _size, _size)(
        tensor, values.ctypes.data, 0, values.nbytes
    )


def _free(buffer: Any, context: Any) -> None:
    _ggml("ggml_backend_buffer_free", None, _pointer)(buffer)
    _ggml("ggml_free", None, _pointer)(context)
