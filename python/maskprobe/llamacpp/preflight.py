"""What makes llama.cpp end the process instead of refusing a model file, looked for before it loads one.

Values of a kind that the loader refuses by itself are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ..errors import ModelError
from ..splits import split_paths
from .gguf import Header, opened

_MOST_LAYERS, _MOST_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_MAGIC = b"GGUF"
_MADE_UP = ("none", "no_vocab", "hybriddna")  # tokenizers whose tokens are not those of the file


def check_file(path: Path) -> None:
    """Raises ModelError for what can be said of a model file before llama.cpp reads it."""
    for part in split_paths(path):
        if not part.exists():
            raise ModelError(f"model file {part} does not exist; check the path")
        if not part.is_file():
            raise ModelError(f"{part} is not a file; give the path of a .gguf file")
        try:
            with part.open("rb") as file:
                magic = file.read(len(_MAGIC))
        except OSError as error:
            raise ModelError(f"model file {part} cannot be read: {error}") from error
        if magic != _MAGIC:
            raise ModelError(f"{part} is not a GGUF file (it begins with {magic!r}); convert the model to GGUF first")


def check_model(path: Path) -> None:
    """Raises ModelError for a file on which llama.cpp would abort. A file that cannot be parsed is left to it."""
    with opened(path) as header:
        if header is None:
            return
        found = next(_faults(header), None)
    if found is not None:
        raise ModelError(f"{path} cannot be used: {found}. Is the file damaged?")


def _faults(header: Header) -> Iterator[str]:
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


def _expert_faults(header: Header) -> Iterator[str]:
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


def _tensor_faults(header: Header) -> Iterator[str]:
    for tensor in header.tensors():
        if tensor.name.endswith(("norm.weight", ".bias")) and tensor.is_quantized:
            yield f"its tensor {tensor.name} is quantized, which none of its kind can be"
