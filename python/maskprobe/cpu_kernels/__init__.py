"""CPU kernels of our own in llama.cpp's place: passes of a few rows cost little more than one.

:class:`~maskprobe.MaskProbeLlama` uses them by itself. A program that runs ``llama_cpp.Llama`` alone has them with

    from maskprobe import cpu_kernels
    cpu_kernels.install()

for all that it computes on the CPU from then on, prompts of up to 64 tokens at a time included, until ``remove()``.
Their results are those of llama.cpp's kernels for one row, bit for bit; where that is not so, or where it is not known
how to get in, llama.cpp's own go on and ``status().reason`` says why.

Decides who may be used, by what is known, by the environment and by what the self-test says; the kernels and their way
in are the core's.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import threading
from dataclasses import dataclass, field

from ..core import kernels
from ..errors import BindingError
from ..llamacpp.devices import ggml_version
from . import self_test, verdict
from .verdict import VARIABLE

__all__ = ["VARIABLE", "Status", "install", "prepare", "remove", "status"]

# Versions of ggml whose structs the core knows, by the versions of llama-cpp-python that are supported.
_KNOWN_GGML = {"0.20.0": "0.3.35", "0.25.3": "0.3.36"}

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
    kernels.set_default(_installed)
    return status()


def remove() -> None:
    """Takes back what :func:`install` did; a MaskProbeLlama goes on as it was made."""
    global _installed
    _installed = False
    kernels.set_default(False)


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
    best = kernels.instructions()
    if (why := _why_not(best)) is not None:
        return Status(best, reason=why)
    try:
        kernels.attach()
    except BindingError as error:
        return Status(best, reason=str(error))
    instructions = kernels.instructions()  # on ARM those that llama.cpp was built for count as well
    if not instructions:
        return Status("", reason=f"llama.cpp was built without what kernels for this processor need ({best})")
    said = verdict.of_self_test(instructions)
    return Status(instructions, reason=said) if isinstance(said, str) else _allowed(instructions, said)


def _allowed(instructions: str, said: self_test.Verdict) -> Status:
    """Allows the kernels that the self-test has found equal."""
    found = {k: said.differences.get(k.name, "it was not checked") for k in kernels.kernels()}
    usable = [kernel for kernel, why in found.items() if why is None]
    for_prompts = [kernel for kernel in usable if kernel.name in said.for_prompts]
    kernels.allow(usable, for_prompts)
    served = {_weights_of(kernel) for kernel in usable}
    refused = {
        kernel.name: why for kernel, why in found.items() if why is not None and _weights_of(kernel) not in served
    }
    reason = "; ".join(f"not for {name}: {why}" for name, why in refused.items()) or None
    return Status(instructions, _names(usable), reason, refused, for_prompts=_names(for_prompts))


def _names(some: list[kernels.Kernel]) -> tuple[str, ...]:
    return tuple(kernel.name for kernel in some)


def _weights_of(kernel: kernels.Kernel) -> str:
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
