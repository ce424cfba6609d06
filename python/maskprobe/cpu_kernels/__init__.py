"""CPU kernels of our own in llama.cpp's place: passes of a few rows cost little more than one.

:class:`~maskprobe.MaskProbeLlama` uses them by itself. A program that runs ``llama_cpp.Llama`` alone has them with

    from maskprobe import cpu_kernels
    cpu_kernels.install()

for all that it computes on the CPU from then on, prompts of up to 64 tokens at a time included, until ``remove()``.
Their results are those of llama.cpp's kernels for one row, bit for bit; where that is not so, or where it is not known
how to get in, llama.cpp's own go on and ``status().reason`` says why.

Decides who may be used, by what is known, by the environment and by a check in a process of its own; the kernels and
their way in are the core's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import cache
from ..core.binding import CORE, check, ffi, lib
from ..errors import BindingError
from ..llamacpp.devices import ggml_version
from ..llamacpp.installed import library_of
from . import self_test

VARIABLE = "MASKPROBE_CPU_KERNELS"
# Versions of ggml whose structs the core knows, by the versions of llama-cpp-python that are supported.
_KNOWN_GGML = {"0.20.0": "0.3.35", "0.25.3": "0.3.36"}
_CHECK_SECONDS = 60.0
# With the paths of this process for its own: a folder it happens to stand in, or an option of Python, changes nothing.
_CHECK = "import sys; sys.path[:] = sys.argv[2:]; from maskprobe.cpu_kernels.self_test import main; main(sys.argv[1])"
# What a process does to itself; other signals come from outside and say nothing of the kernels.
_FAULTS = {getattr(signal, name, None) for name in ("SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT")}

_lock = threading.Lock()
_prepared: Status | None = None
_installed = False


@dataclass(frozen=True)
class Status:
    """Which kernels may be used in this process."""

    instructions: str  # that they are chosen by: "avx512-vnni", "neon-i8mm", ...; "" = none fit this processor
    kernels: tuple[str, ...] = ()  # by the weights they are for: "q4_0 repacked", "q6_k", ...
    reason: str | None = None  # why llama.cpp's own kernels go on, for all weights or for some; None = they need not
    refused: dict[str, str] = field(default_factory=dict)  # what the check said of the others
    installed: bool = False  # for passes that are not a MaskProbeLlama's
    for_prompts: tuple[str, ...] = ()  # those of the kernels that compute prompts too, where they are faster

    @property
    def active(self) -> bool:
        """Whether there are kernels that may be used."""
        return bool(self.kernels)

    def __str__(self) -> str:
        if not self.active:
            return f"llama.cpp's own: {self.reason}"
        return f"{self.instructions}: {', '.join(self.kernels)}" + (f" ({self.reason})" if self.reason else "")


def status() -> Status:
    """Which kernels may be used, and why not others; finds it out if nobody has yet."""
    found = prepare()
    return dataclasses.replace(found, installed=_installed)


def install() -> Status:
    """Uses the kernels for every pass on the CPU in this process from now on, whoever runs it."""
    global _installed
    _installed = prepare().active
    check(lib.mp_kernels_set_default(int(_installed)))
    return status()


def remove() -> None:
    """Takes back what :func:`install` did; a MaskProbeLlama goes on as it was made."""
    global _installed
    _installed = False
    check(lib.mp_kernels_set_default(0))


def prepare() -> Status:
    """Gets the kernels ready, once per process.

    Raises:
        ValueError: the environment variable is neither 0 nor 1.
    """
    global _prepared
    with _lock:
        if _prepared is None:
            _prepared = _prepare()
        return _prepared


def _prepare() -> Status:
    instructions = _instructions()
    if (why := _why_not(instructions)) is not None:
        return Status(instructions, reason=why)
    try:
        self_test.attach()
    except BindingError as error:
        return Status(instructions, reason=str(error))
    instructions, best = _instructions(), instructions  # on ARM those that llama.cpp was built for count as well
    if not instructions:
        return Status("", reason=f"llama.cpp was built without what kernels for this processor need ({best})")
    verdict = _verdict(instructions)
    if isinstance(verdict, str):
        return Status(instructions, reason=verdict)
    found = {k: verdict.differences.get(k.name, "it was not checked") for k in self_test.kernels()}
    usable = [kernel for kernel, why in found.items() if why is None]
    for_prompts = [kernel for kernel in usable if kernel.name in verdict.for_prompts]
    check(lib.mp_kernels_allow(_bits(usable), _bits(for_prompts)))
    served = {_weights_of(kernel) for kernel in usable}
    refused = {
        kernel.name: why for kernel, why in found.items() if why is not None and _weights_of(kernel) not in served
    }
    reason = "; ".join(f"not for {name}: {why}" for name, why in refused.items()) or None
    return Status(instructions, _names(usable), reason, refused, for_prompts=_names(for_prompts))


def _bits(kernels: list[self_test.KernelInfo]) -> int:
    return sum(1 << kernel.index for kernel in kernels)


def _names(kernels: list[self_test.KernelInfo]) -> tuple[str, ...]:
    return tuple(kernel.name for kernel in kernels)


def _instructions() -> str:
    return str(ffi.string(lib.mp_kernels_instructions()).decode())


def _weights_of(kernel: self_test.KernelInfo) -> str:
    """Names what a kernel is for: of two that round differently one will do."""
    return kernel.name.removesuffix(" fused")


def _why_not(instructions: str) -> str | None:
    """What speaks against the kernels before anything is tried."""
    value = os.environ.get(VARIABLE, "1")
    if value not in ("0", "1"):
        remedy = "set it to 0 for llama.cpp's own kernels, or unset it"
        raise ValueError(f"{VARIABLE}={value!r} is neither 0 nor 1: {remedy}")
    if value == "0":
        return f"{VARIABLE}=0"
    version = ggml_version().split(" ")[0]
    if version not in _KNOWN_GGML:
        known = ", ".join(f"{ggml} (llama-cpp-python {python})" for ggml, python in _KNOWN_GGML.items())
        return f"ggml {version} is not one whose insides are known: {known}"
    if not instructions:
        needs = "they need AVX2, or an ARM processor with dot products"
        return f"there are none for this processor ({platform.machine()}); {needs}"
    return None


def _verdict(instructions: str) -> self_test.Verdict | str:
    """What the check says of each kernel, or why there is no saying; from the cache if this was checked before."""
    name = f"cpu-kernels-{_combination(instructions)}"
    stored = cache.load_shared_json(name)
    if isinstance(stored, str):
        return stored
    if (known := _parsed(stored)) is not None:
        return known
    try:
        done = _run_check(instructions)
    except (OSError, subprocess.TimeoutExpired) as error:  # may be different next time
        return f"the check of the kernels could not be run to its end ({error})"
    verdict = _read(done)
    cache.store_shared_json(name, dataclasses.asdict(verdict) if isinstance(verdict, self_test.Verdict) else verdict)
    return verdict


def _run_check(instructions: str) -> subprocess.CompletedProcess[str]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("this program is no Python that could run it")
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, instructions, *(path for path in sys.path if isinstance(path, str))],
        # A program that is no Python after all must not start another; threads that spin make a busy machine crawl.
        env={**os.environ, VARIABLE: "0", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_CHECK_SECONDS,
    )
    if done.returncode < 0 and -done.returncode not in _FAULTS:
        raise OSError(f"it was ended by signal {-done.returncode}")
    return done


def _read(done: subprocess.CompletedProcess[str]) -> self_test.Verdict | str:
    if done.returncode < 0:
        return f"the check of the kernels was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines() or ["nothing"]
    if done.returncode != 0:
        return f"the check of the kernels failed with code {done.returncode} and said: {lines[-1]}"
    try:
        found = _parsed(json.loads(done.stdout))
    except ValueError:
        found = None
    return found or f"the check of the kernels said nothing that can be read: {done.stdout[:200]!r}"


def _parsed(found: Any) -> self_test.Verdict | None:
    """A verdict as the check prints it, None if it is none."""
    try:
        differences = {str(name): None if why is None else str(why) for name, why in found["differences"].items()}
        return self_test.Verdict(differences, tuple(str(name) for name in found["for_prompts"]))
    except (TypeError, AttributeError, KeyError):
        return None


def _combination(instructions: str) -> str:
    """Names what the verdict depends on: ggml's library, ours, the processor and the check itself."""
    digest = hashlib.sha256()
    for path in (library_of("ggml_barrier"), CORE):
        digest.update(path.read_bytes() if path is not None else b"?")
    for part in (_processor(), instructions, str(self_test.FORMAT)):
        digest.update(part.encode(errors="replace") + b"\0")
    return digest.hexdigest()[:24]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = ("model name", "flags", "CPU ", "Features")  # x86's, then ARM's
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))
