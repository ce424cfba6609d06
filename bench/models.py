"""Quantizations of the embedded model, made once and kept beside the cached files of the package."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp

from maskprobe import cache, embedded_model
from maskprobe.llamacpp.logs import captured_log

FTYPES = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q5_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q6_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "F32": llama_cpp.LLAMA_FTYPE_ALL_F32,
}
NAMES = ("Q4_1", *FTYPES)


def quantized(name: str) -> Path:
    """Path of SmolLM2-135M-Instruct in the named type."""
    if name == "Q4_1":
        return embedded_model()
    path = cache.directory() / "bench-models" / f"SmolLM2-135M-Instruct.{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = FTYPES[name]
        params.allow_requantize = True
        part = path.with_suffix(".part")
        with captured_log(verbose=False) as errors:
            source, target = str(embedded_model()).encode(), str(part).encode()
            if llama_cpp.llama_model_quantize(source, target, ctypes.byref(params)):
                raise RuntimeError(f"cannot quantize the embedded model to {name}: {errors}")
        part.replace(path)
    return path
