"""What changes a loaded model without changing its file: LoRA adapters and control vectors, both GGUF files."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..checking import checked_integer, checked_number
from ..errors import ModelError
from ..splits import split_paths
from .gguf import Header, opened
from .installed import llama_cpp
from .logs import reason
from .preflight import check_file

if TYPE_CHECKING:
    from .model import Model

Shapes = Mapping[str, tuple[int, ...]]  # of tensors, by name

_F32 = 0  # ggml_type
_LORA_TYPES = {_F32: "F32", 1: "F16", 30: "BF16", 8: "Q8_0"}  # that llama.cpp's converter writes
_DIRECTION = re.compile(r"direction\.([1-9][0-9]*)")


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter, and how much of it is applied."""

    path: Path
    scale: float

    def __post_init__(self) -> None:
        checked_number("lora_scale", self.scale, -100.0, 100.0)

    def apply(self, model: Model, errors: list[str]) -> None:
        """Has the context use the adapter.

        Raises:
            ModelError: the file is missing, or llama.cpp refuses it, or would not survive it.
        """
        check_file(self.path)
        with opened(self.path) as header:
            fault = None if header is None else next(_lora_faults(header, _shapes(model.path)), None)
        if fault is not None:
            raise ModelError(f"the LoRA adapter {self.path} cannot be used: {fault}")
        # Freed with the model.
        adapter = llama_cpp.llama_adapter_lora_init(model.model, os.fsencode(self.path))
        if not adapter:
            raise ModelError(
                f"llama.cpp cannot use the LoRA adapter {self.path}: {reason(errors)}; "
                "give one in GGUF form that was made for this model"
            )
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        if llama_cpp.llama_set_adapters_lora(model.ctx, adapters, 1, (ctypes.c_float * 1)(self.scale)):
            raise ModelError(f"llama.cpp cannot apply the LoRA adapter {self.path}: {reason(errors)}")


def _shapes(model: Path) -> Shapes:
    """The sizes of the model's tensors."""
    shapes = {}
    for part in split_paths(model):
        with opened(part) as header:
            shapes.update({tensor.name: tensor.shape for tensor in header.tensors()} if header is not None else {})
    return shapes


def _lora_faults(header: Header, base: Shapes) -> Iterator[str]:
    """What makes llama.cpp end the process, at loading or in the first pass; the rest it refuses by itself."""
    for key in ("general.type", "general.architecture", "adapter.type"):
        if key in header and header.text(key) is None:
            yield f"its {key} is no text; convert it anew"
    if "adapter.lora.alpha" in header and header.real("adapter.lora.alpha") is None:
        yield "its adapter.lora.alpha is no F32 number; convert it anew"
    ranks = set()  # of what changes the token embeddings
    for tensor in header.tensors():
        if not tensor.name.endswith((".lora_a", ".lora_b")):
            continue
        name = tensor.name.replace(tensor.name[-len(".lora_a") :], "")  # as llama.cpp finds it
        if tensor.type not in _LORA_TYPES:
            yield f"its tensor {tensor.name} is not {' or '.join(_LORA_TYPES.values())}; convert it anew"
        if 0 in tensor.shape or tensor.shape[2:] != base.get(name, ())[2:]:  # experts have a third dimension
            yield (
                f"its tensor {tensor.name} has the shape {list(tensor.shape)}, {name} has {list(base.get(name, ()))}; "
                "give one that was made for this model"
            )
        if name == "token_embd.weight":
            ranks.add(tensor.shape[0])
    if len(ranks) > 1:
        yield "its tensors for token_embd.weight have different ranks; convert it anew"
    if ranks and "output.weight" not in base:
        yield "it changes token_embd.weight, which is the model's output too; merge it into the model"


@dataclass(frozen=True)
class ControlVector:
    """Directions that are added to what layers put out, times a scale."""

    path: Path
    scale: float
    layers: Sequence[int] | None  # the first and the last, from 1; None = all

    def __post_init__(self) -> None:
        checked_number("control_vector_scale", self.scale, -1e6, 1e6)
        if self.layers is not None:
            if not isinstance(self.layers, Sequence) or len(self.layers) != 2:
                raise TypeError(f"control_vector_layer_range must be the first and the last layer, got {self.layers!r}")
            first, last = (checked_integer("control_vector_layer_range", layer, 1, 2**31 - 1) for layer in self.layers)
            if first > last:
                raise ValueError(f"control_vector_layer_range begins at layer {first}, after its end {last}")

    def apply(self, model: Model, errors: list[str]) -> None:
        """Has the context add the vector.

        Raises:
            ModelError: the file is missing or of another model, or llama.cpp refuses it.
            ValueError: the model has fewer layers than the range.
        """
        n_layer, n_embd = llama_cpp.llama_model_n_layer(model.model), model.n_embd
        first, last = self.layers if self.layers is not None else (1, n_layer)
        if last > n_layer:
            raise ValueError(f"control_vector_layer_range ends at layer {last}, but the model has {n_layer} layers")
        data = self._read(n_layer, n_embd) * np.float32(self.scale)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        if llama_cpp.llama_set_adapter_cvec(model.ctx, pointer, data.size, n_embd, first, last):
            raise ModelError(f"llama.cpp cannot apply the control vector {self.path}: {reason(errors)}")

    def _read(self, n_layer: int, n_embd: int) -> npt.NDArray[np.float32]:
        """The directions, zero where the file has none, [n_layer, n_embd]. llama.cpp adds none in the last layer."""
        check_file(self.path)
        directions = np.zeros((n_layer, n_embd), np.float32)
        with opened(self.path) as header:
            tensors = [] if header is None else list(header.tensors())
        if not tensors:
            raise ModelError(
                f"{self.path} is no control vector: it has no tensors direction.1, direction.2, ...; "
                "give one in GGUF form"
            )
        for tensor in tensors:
            match = _DIRECTION.fullmatch(tensor.name)
            if match is None or tensor.type != _F32:
                raise ModelError(
                    f"{self.path} is no control vector: its tensor {tensor.name} is no direction.N of F32 values; "
                    "give one in GGUF form"
                )
            if int(match[1]) > n_layer or tensor.shape != (n_embd,):
                raise ModelError(
                    f"the control vector {self.path} is of another model: {tensor.name} has the shape "
                    f"{list(tensor.shape)}, the model has {n_layer} layers of {n_embd} dimensions; "
                    "give one that was made for this model"
                )
            values = np.fromfile(self.path, "<f4", n_embd, offset=tensor.offset)
            if len(values) != n_embd or not np.isfinite(values).all():
                raise ModelError(
                    f"the control vector {self.path} is damaged: {tensor.name} is cut or no number; get the file anew"
                )
            directions[int(match[1]) - 1] = values
        return directions
