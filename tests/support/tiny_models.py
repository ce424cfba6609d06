"""Tiny GGUF models with random weights, one for each kind of model that the package treats differently.

`make` writes one by name, `split_gguf` cuts one into several files. The weights come from a seed, the tokenizer
(tiny_tokenizer.py) is the same for all, tensors and metadata are in tiny_architectures.py and tiny_recurrent.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import numpy as np
from tiny_architectures import (
    DECODERS,
    ENCODERS,
    N_CTX,
    N_EMBD,
    N_EXPERT,
    N_FF,
    N_HEAD,
    N_HEAD_KV,
    N_LAYER,
    OUTPUT,
    Model,
    Value,
)
from tiny_recurrent import RECURRENT
from tiny_tokenizer import BOS, N_VOCAB, add_tokenizer

__all__ = [
    "BOS",
    "NAMES",
    "N_EMBD",
    "N_EXPERT",
    "N_FF",
    "N_LAYER",
    "N_VOCAB",
    "describe",
    "make",
    "make_coder",
    "make_control_vector",
    "make_lora",
    "split_gguf",
]

# Small embeddings and sharp attention keep greedy text from repeating one token; the output norm makes up for the
# small logits that a small embedding table gives.
GAIN = {
    **dict.fromkeys(("token_embd", "output"), 0.25),
    **dict.fromkeys(("output_norm", "token_embd_norm"), 4.0),
    **dict.fromkeys(("attn_q", "attn_k", "attn_qkv", "attn_q_norm", "attn_k_norm"), 2.0),
    **dict.fromkeys(("attn_q_b", "attn_k_b", "attn_v_b"), 3.0),
}

# Vectors that are neither norms nor biases.
CENTRE = {
    **dict.fromkeys(("time_mix_lerp_fused", "channel_mix_lerp_k"), 0.5),
    "time_mix_w0": -2.0,  # decays of some 0.93 per token
}

NAMES = (*DECODERS, *RECURRENT, *ENCODERS)
_MODELS = {**DECODERS, **RECURRENT, **ENCODERS}


def describe(name: str) -> tuple[str, str]:
    """The architecture of a model, and what is particular about it."""
    return _MODELS[name].arch, _MODELS[name].what


def make(name: str, path: Path, *, seed: int = 0, loudness: float = 1.0, chat_template: str | None = None) -> Path:
    """Writes the model called `name` to `path` and returns `path`.

    loudness scales the embeddings: above 1, a model has an output of its own, a token depends more on the last one
    alone, and greedy text copies itself.
    """
    return write(_MODELS[name], path, seed=seed, loudness=loudness, chat_template=chat_template)


def write(
    model: Model,
    path: Path,
    *,
    seed: int = 0,
    loudness: float = 1.0,
    chat_template: str | None = None,
    keys: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """Writes a model to `path` and returns `path`; see :func:`make`."""
    writer = gguf.GGUFWriter(path, model.arch)
    sizes = {
        "context_length": N_CTX,
        "embedding_length": N_EMBD,
        "block_count": N_LAYER,
        "feed_forward_length": N_FF,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD_KV,
        "attention.layer_norm_rms_epsilon": 1e-6,
        **model.keys,
    }
    for key, value in sizes.items():
        _add_key(writer, f"{model.arch}.{key}", value)
    add_tokenizer(writer)
    for key, value in keys.items():
        _add_key(writer, key, value)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    rng = np.random.default_rng(seed)
    tensors = {"token_embd.weight": (N_VOCAB, N_EMBD), **model.tensors, **(OUTPUT if loudness > 1.0 else {})}
    for tensor, shape in tensors.items():
        scale = loudness if tensor == "token_embd.weight" else 1.0
        writer.add_tensor(tensor, _weights(rng, tensor, shape) * np.float32(scale))
    _write(writer)
    return path


def make_coder(path: Path, *, chat_template: str | None = None) -> Path:
    """Writes a model to fill in the middle with, whose tokens for it are the bytes 1 to 5, and returns `path`."""
    keys = {f"tokenizer.ggml.fim_{name}_token_id": i + 1 for i, name in enumerate(("pre", "suf", "mid", "rep", "sep"))}
    return write(_MODELS["llama"], path, chat_template=chat_template, keys=keys)


def split_gguf(path: Path, out_dir: Path, n: int) -> Path:
    """Writes the model at `path` as `n` files into `out_dir` and returns the first, which holds no embedding table."""
    reader = gguf.GGUFReader(path)
    # The sort is stable: all but the embedding table keep their places.
    tensors = sorted(reader.tensors, key=lambda tensor: tensor.name == "token_embd.weight")
    if not 2 <= n <= len(tensors):
        raise ValueError(f"cannot split {len(tensors)} tensors into {n} files")
    arch = reader.fields["general.architecture"].contents()
    files = [out_dir / f"{path.stem}-{i + 1:05d}-of-{n:05d}.gguf" for i in range(n)]
    for i, file in enumerate(files):
        writer = gguf.GGUFWriter(file, arch)
        if i == 0:
            for key, entry in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    writer.add_key_value(key, entry.contents(), entry.types[0], entry.types[-1])
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", n)
        writer.add_int32("split.tensors.count", len(tensors))
        for tensor in tensors[i * len(tensors) // n : (i + 1) * len(tensors) // n]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        _write(writer)
    return files[0]


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_key(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def _weights(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    kind = name.removesuffix(".weight").split(".")[-1]
    if kind == "ssm_a":
        return -np.exp(noise)  # a decay rate: above zero the state would grow without bound
    if name.endswith((".weight", ".scale")) or kind.endswith("_norm"):
        is_matrix = len(shape) > 1 and not kind.endswith("_norm") and kind not in CENTRE
        spread = shape[-1] ** -0.5 if is_matrix else 0.1
        centre = CENTRE.get(kind, 0.0 if is_matrix else 1.0)
        return (centre + spread * noise).astype(np.float32) * np.float32(GAIN.get(kind, 1.0))
    return noise * np.float32(0.1)


def make_lora(path: Path, *, rank: int = 2, seed: int = 1) -> Path:
    """Writes a LoRA adapter for the model called llama to `path` and returns `path`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    rng = np.random.default_rng(seed)
    for layer in range(N_LAYER):
        base = f"blk.{layer}.attn_q.weight"
        writer.add_tensor(f"{base}.lora_a", rng.normal(size=(rank, N_EMBD)).astype(np.float32))
        writer.add_tensor(f"{base}.lora_b", rng.normal(size=(N_EMBD, rank)).astype(np.float32))
    _write(writer)
    return path


def make_control_vector(path: Path, directions: dict[int, np.ndarray]) -> Path:
    """Writes a control vector with directions by layer to `path` and returns `path`."""
    writer = gguf.GGUFWriter(path, "controlvector")
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    _write(writer)
    return path
