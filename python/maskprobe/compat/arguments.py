"""Arguments of llama_cpp.Llama that are not there: which of them change nothing, and what to do about the rest.

Programs and libraries that construct a llama_cpp.Llama pass many of them with their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_EMBEDDINGS = "embeddings are made by llama_cpp.Llama(embedding=True)"
_ROPE = "the model's own is used; llama_cpp.Llama can change it, rope_freq_base and rope_freq_scale are there here too"


class _Refused(NamedTuple):
    """An argument whose value matters."""

    unless: tuple[Any, ...]  # values that ask for what is done anyway
    why: str


# Any value is accepted.
_WITHOUT_EFFECT = {
    "logits_all": "log-probabilities are there without it",
    "n_parts": "files older than GGUF had several parts",
    "no_perf": "answers carry timings of their own",
}
_REFUSED = {
    "attention_type": _Refused((-1,), _EMBEDDINGS),
    "draft_model": _Refused((None,), "what is drafted is chosen by speculation=Speculation(...)"),
    "embedding": _Refused((False,), _EMBEDDINGS),
    "f16_kv": _Refused((True,), "type_k and type_v choose the types of the KV cache"),
    "kv_overrides": _Refused((None, {}), "a file's metadata is changed by gguf-set-metadata of the package gguf"),
    "last_n_tokens_size": _Refused((64,), "generate and stream take it as penalty_last_n"),
    "lora_base": _Refused((None,), "llama.cpp applies lora_path to the model itself"),
    "numa": _Refused((False,), "start the program with numactl"),
    "op_offload": _Refused((None, True), "it is on where layers lie on a device, and off elsewhere"),
    "pooling_type": _Refused((-1,), _EMBEDDINGS),
    "rope_scaling_type": _Refused((None, -1), _ROPE),
    "spm_infill": _Refused((False,), "a suffix stands behind the prefix, where the model's own tokens mark them"),
    "swa_full": _Refused((None, True), "drafts are taken back from a cache that holds all rows"),
    "tokenizer": _Refused((None,), "the model's own vocabulary is used"),
    "vocab_only": _Refused((False,), "only llama_cpp.Llama loads a model without its weights"),
    "yarn_attn_factor": _Refused((-1.0, 1.0), _ROPE),
    "yarn_beta_fast": _Refused((-1.0, 32.0), _ROPE),
    "yarn_beta_slow": _Refused((-1.0, 1.0), _ROPE),
    "yarn_ext_factor": _Refused((-1.0,), _ROPE),
    "yarn_orig_ctx": _Refused((0,), _ROPE),
}


def check_foreign(arguments: Mapping[str, Any]) -> None:
    """Checks arguments of the constructor that are not its own.

    Raises:
        TypeError: llama_cpp.Llama does not have the argument either.
        ValueError: it asks for something that cannot be had here; the message says what to do.
    """
    for name, value in arguments.items():
        if name in _WITHOUT_EFFECT:
            continue
        if name not in _REFUSED:
            raise TypeError(f"MaskProbeLlama got an unexpected keyword argument {name!r}")
        unless, why = _REFUSED[name]
        if value not in unless:
            raise ValueError(f"{name}={value!r} is not supported: {why}")
