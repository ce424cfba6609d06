"""How a model is loaded: llama-cpp-python's options, checked, and llama.cpp's structs that they stand for.

Knows names and ranges; leaves what needs the model file to Model.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..checking import checked_flag, checked_integer, checked_number
from .adapters import ControlVector, Lora
from .installed import llama_cpp
from .memory import default_cache_ram
from .rpc import checked_servers

_MOST = 2**31 - 1
_INTEGERS = {
    "n_ctx": (0, _MOST),
    "n_batch": (1, _MOST),
    "n_ubatch": (1, _MOST),
    "n_gpu_layers": (-1, _MOST),
    "n_threads": (1, 512),
    "n_threads_batch": (1, 512),
    "split_mode": (0, 3),
    "main_gpu": (0, 255),
    "n_parallel": (1, 16),
}
_FLAGS = ("flash_attn", "use_mmap", "use_mlock", "offload_kqv", "cpu_kernels", "queue", "verbose")


@dataclass(kw_only=True)
class LoadOptions:
    """What :class:`~maskprobe.MaskProbeLlama` says of each of them is true here.

    Raises:
        ValueError, TypeError: a value is out of range; the message names it.
    """

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    n_threads_batch: int
    n_gpu_layers: int
    rpc_servers: Sequence[str]
    split_mode: int
    main_gpu: int
    tensor_split: Sequence[float]
    flash_attn: bool
    type_k: int | None
    type_v: int | None
    use_mmap: bool
    use_mlock: bool
    offload_kqv: bool
    rope_freq_base: float
    rope_freq_scale: float
    lora: Lora | None
    control_vector: ControlVector | None
    snapshot_memory: float
    cpu_kernels: bool
    n_parallel: int
    cache_ram: float
    queue: bool
    verbose: bool

    @staticmethod
    def of_arguments(arguments: Mapping[str, Any]) -> LoadOptions:
        """The options that the arguments of :class:`~maskprobe.MaskProbeLlama` say, by name."""
        names = {field.name for field in fields(LoadOptions)}
        given = {name: value for name, value in arguments.items() if name in names}
        if given["n_threads"] is None:
            given["n_threads"] = default_n_threads()
        if given["n_threads_batch"] is None:
            given["n_threads_batch"] = given["n_threads"]
        if given["cache_ram"] is None:
            given["cache_ram"] = default_cache_ram(Path(arguments["model_path"]), given["n_gpu_layers"])
        given["rpc_servers"] = checked_servers(given["rpc_servers"], given["n_gpu_layers"])
        given["tensor_split"] = given["tensor_split"] or ()
        path, vector = arguments["lora_path"], given["control_vector"]
        given["lora"] = None if path is None else Lora(Path(path), arguments["lora_scale"])
        if vector is not None:
            layers = arguments["control_vector_layer_range"]
            given["control_vector"] = ControlVector(Path(vector), arguments["control_vector_scale"], layers)
        return LoadOptions(**given)

    def __post_init__(self) -> None:
        for name, (low, high) in _INTEGERS.items():
            setattr(self, name, checked_integer(name, getattr(self, name), low, high))
        for name in _FLAGS:
            checked_flag(name, getattr(self, name))
        for name in ("rope_freq_base", "rope_freq_scale"):
            setattr(self, name, checked_number(name, getattr(self, name), 0.0))
        self.snapshot_memory = checked_number("snapshot_memory", self.snapshot_memory, 0.0, 1.0)
        self.cache_ram = checked_number("cache_ram", self.cache_ram, 0.0)
        self.tensor_split = [checked_number("tensor_split", share, 0.0) for share in self.tensor_split]
        if len(self.tensor_split) > (most := llama_cpp.llama_max_devices()):
            raise ValueError(
                f"tensor_split has {len(self.tensor_split)} shares, but llama.cpp knows at most {most} devices"
            )

    def uses_devices(self) -> bool:
        """Whether layers may be computed elsewhere than by the CPU."""
        return self.n_gpu_layers != 0

    def model_params(self) -> Any:
        """llama.cpp's parameters of the model."""
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = self.n_gpu_layers
        params.split_mode, params.main_gpu = self.split_mode, self.main_gpu
        if self.tensor_split:
            params.tensor_split = (ctypes.c_float * llama_cpp.llama_max_devices())(*self.tensor_split)
        params.load_mode = {
            (False, False): llama_cpp.LLAMA_LOAD_MODE_NONE,
            (True, False): llama_cpp.LLAMA_LOAD_MODE_MMAP,
            (False, True): llama_cpp.LLAMA_LOAD_MODE_MLOCK,
            (True, True): llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK,
        }[self.use_mmap, self.use_mlock]
        return params

    def context_params(self, n_sequences: int, *, n_snapshots: int = 0) -> Any:
        """llama.cpp's parameters of a context with room for so many sequences, and snapshots of their states."""
        params = llama_cpp.llama_context_default_params()
        # Every sequence needs a cell; llama.cpp makes contexts in steps of 256 cells anyway.
        params.n_ctx = max(self.n_ctx, n_sequences) if self.n_ctx else 0
        params.n_batch = self.n_batch
        params.n_ubatch = min(self.n_ubatch, self.n_batch)
        params.n_threads, params.n_threads_batch = self.n_threads, self.n_threads_batch
        params.offload_kqv = self.offload_kqv
        # Otherwise llama.cpp computes passes of 32 rows and more on a GPU that nobody asked for, where logits differ.
        params.op_offload = self.uses_devices()
        params.rope_freq_base, params.rope_freq_scale = self.rope_freq_base, self.rope_freq_scale
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if self.flash_attn else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        if self.type_k is not None:
            params.type_k = self.type_k
        if self.type_v is not None:
            params.type_v = self.type_v
        # Branches of a block share one cache, and sliding windows keep rows that may be verified later.
        params.kv_unified = True
        params.swa_full = True
        # llama.cpp keeps room for the logits (and the state, in recurrent models) of every sequence, and wants no
        # more of them than outputs.
        params.n_seq_max = min(n_sequences, self.n_batch)
        params.n_rs_seq = n_snapshots
        return params


def default_n_threads() -> int:
    """One thread per physical core this process may run on."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    cores = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            return max(1, len(cpus) // 2)
    return len(cores)
