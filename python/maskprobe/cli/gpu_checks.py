"""The checks of `maskprobe doctor` that concern devices: which there are, and a GPU that lies idle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from ..llamacpp.building import BACKENDS, build_command
from ..llamacpp.devices import backends, devices, local_gpus
from .check import Check

# Programs that tell what a backend's driver finds. Where one of the first three is installed, so is such a GPU.
_DRIVERS = {"CUDA": "nvidia-smi", "ROCm": "rocminfo", "SYCL": "sycl-ls", "Vulkan": "vulkaninfo --summary"}
_TELLING = ("CUDA", "ROCm", "SYCL")


def gpu_checks(n_gpu_layers: int) -> Iterator[Check]:
    """A line for each device, and one that says whether layers can lie on a GPU."""
    for device in devices():
        free, total = device.free_bytes / 1e9, device.total_bytes / 1e9
        memory = f", {free:.1f} of {total:.1f} GB free" if total else ""
        yield Check(f"device {device.name}", "ok", device.description + memory)
    yield _gpu(n_gpu_layers)


def _gpu(n_gpu_layers: int) -> Check:
    there = backends()
    if local_gpus():
        return Check("GPU", "ok", "layers can be put on it: --n-gpu-layers -1")
    built_for = [name for name in _DRIVERS if name in there]
    if built_for:
        found = f"llama.cpp was built for {', '.join(built_for)}, but finds no GPU"
        return Check("GPU", "warning" if n_gpu_layers == 0 else "problem", found, _DRIVERS[built_for[0]])
    if "RPC" in there:
        return Check("GPU", "ok", "none here; RPC servers can take layers: --rpc HOST:PORT --n-gpu-layers -1")
    idle = next((name for name in _TELLING if shutil.which(_DRIVERS[name])), None)
    if n_gpu_layers != 0:
        found = f"--n-gpu-layers {n_gpu_layers}, but llama.cpp was built for CPUs alone"
        return Check("GPU", "problem", found, _build(idle))
    if idle is not None:
        found = f"{_DRIVERS[idle]} is installed, but llama.cpp was built for CPUs alone"
        return Check("GPU", "warning", found, _build(idle))
    return Check("GPU", "ok", "none; llama.cpp was built for CPUs alone")


def _build(backend: str | None) -> str:
    """The build for a backend; where none shows itself, for the most frequent one, and what stands for others."""
    if backend is not None:
        return build_command(BACKENDS[backend])
    others = ", ".join(BACKENDS[name].split()[0] for name in ("ROCm", "MTL", "Vulkan", "SYCL"))
    return f"{build_command(BACKENDS['CUDA'])}  # for other GPUs: {others}"
