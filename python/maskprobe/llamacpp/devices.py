"""The backend devices of the llama.cpp that llama-cpp-python has loaded. Knows ggml's device list, read only."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from .installed import function, llama_cpp
from .logs import captured_log

_GPU, _IGPU = 1, 2  # ggml_backend_dev_type


@dataclass(frozen=True)
class Device:
    """A device llama.cpp can compute on."""

    name: str
    description: str
    free_bytes: int
    total_bytes: int


def devices() -> list[Device]:
    """All devices, the CPU among them."""
    return [describe(device) for device in _handles()]


def backends() -> list[str]:
    """Names of the backends that llama.cpp was built with, whether they find a device or not: "CPU", "CUDA", ..."""
    with captured_log(verbose=False):
        llama_cpp.llama_backend_init()
        backend_at = function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
        name = function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
        return [name(backend_at(i)).decode() for i in range(function("ggml_backend_reg_count", ctypes.c_size_t)())]


def local_gpus() -> list[int]:
    """Handles of the GPUs that llama.cpp would use: those with memory of their own, else those without."""
    kind = function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    found = [(device, kind(device)) for device in _handles()]
    return [device for device, its in found if its == _GPU] or [device for device, its in found if its == _IGPU]


def ggml_version() -> str:
    """Version and commit of ggml."""
    version, commit = (function(name, ctypes.c_char_p)().decode() for name in ("ggml_version", "ggml_commit"))
    return f"{version} ({commit})"


def system_info() -> str:
    """What llama.cpp was built for and found."""
    with captured_log(verbose=False):
        return str(llama_cpp.llama_print_system_info().decode(errors="replace").strip(" |"))


def describe(device: int) -> Device:
    """What ggml says of a device."""
    name, description = (
        function(f"ggml_backend_dev_{what}", ctypes.c_char_p, ctypes.c_void_p)(device).decode(errors="replace")
        for what in ("name", "description")
    )
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    size_p = ctypes.POINTER(ctypes.c_size_t)
    memory = function("ggml_backend_dev_memory", None, ctypes.c_void_p, size_p, size_p)
    memory(device, ctypes.byref(free), ctypes.byref(total))
    return Device(name, description, free.value, total.value)


def _handles() -> list[int]:
    with captured_log(verbose=False):  # backends tell what they have found
        llama_cpp.llama_backend_init()
        return _registered()


def _registered() -> list[int]:
    device_at = function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return [device_at(i) for i in range(function("ggml_backend_dev_count", ctypes.c_size_t)())]
