"""The command that builds llama-cpp-python anew. Knows options of llama.cpp's CMake."""

from __future__ import annotations

from ..shell import with_variable
from .devices import backends
from .installed import requirement

NATIVE = "-DGGML_NATIVE=on"  # for all instructions of this processor
# What brings a backend, by the backend's name.
BACKENDS = {
    "CUDA": "-DGGML_CUDA=on",
    "ROCm": "-DGGML_HIP=on",
    "MTL": "-DGGML_METAL=on",
    "Vulkan": "-DGGML_VULKAN=on",
    "SYCL": "-DGGML_SYCL=on -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
    "RPC": "-DGGML_RPC=on",
}


def build_command(*wanted: str) -> str:
    """Builds it with these options, and with the backends that it has already."""
    there = [BACKENDS[name] for name in backends() if name in BACKENDS]
    # What pip keeps is the build before, so it must not be taken; other packages stay as they are.
    pip = f'pip install --force-reinstall --no-cache-dir --no-deps "{requirement()}"'
    return with_variable("CMAKE_ARGS", " ".join(dict.fromkeys((*there, *wanted))), pip)
