"""The core's kernels for the CPU: which there are, whether they are in the way of ggml, and who takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .binding import CORE, addresses, check, ffi, lib

LIBRARY = CORE  # the file that they are in


@dataclass(frozen=True)
class Kernel:
    """A kernel for products with weights of a type, or for attention over a cache of a type."""

    index: int
    name: str  # "q4_0", "q4_0 repacked", "q4_0 fused" (rounds otherwise), "attention f16", ...
    type: int  # ggml_type
    repacked: bool  # for weights in the layout of ggml's CPU_REPACK
    k_multiple: int  # it takes weights of so many columns' multiple
    n_multiple: int  # and so many rows' multiple
    fewest_rows: int  # of activations; below, and above most_rows, llama.cpp's own kernels go on
    most_rows: int

    def n_used(self) -> int:
        """Products, or attentions, that it has computed in this process."""
        return int(lib.mp_kernels_n_used(self.index))


def kernels() -> list[Kernel]:
    """The kernels that the present instructions have."""
    found: list[Kernel] = []
    info = ffi.new("mp_kernel *")
    while lib.mp_kernels_get(len(found), info) == lib.MP_OK:
        sizes = (info.k_multiple, info.n_multiple, info.fewest_rows, info.most_rows)
        found.append(Kernel(len(found), ffi.string(info.name).decode(), info.type, bool(info.repacked), *sizes))
    return found


def attach() -> None:
    """Puts the kernels in the way of ggml's CPU backend, for good; none is used before it is allowed.

    Raises:
        BindingError: this build of ggml does not let them in; the message says why.
    """
    check(lib.mp_kernels_attach(*addresses(lib.mp_kernels_required_function)))


def allow(usable: Iterable[Kernel], for_prompts: Iterable[Kernel] = ()) -> None:
    """Lets passes take these kernels from now on, and prompts those of them that are for prompts."""
    check(lib.mp_kernels_allow(_bits(usable), _bits(for_prompts)))


def _bits(chosen: Iterable[Kernel]) -> int:
    return sum(1 << kernel.index for kernel in chosen)


def instructions() -> str:
    """The instruction set that kernels are chosen by: "avx2", "neon-i8mm", ...; "" = none fits."""
    return str(ffi.string(lib.mp_kernels_instructions()).decode())


def limit_instructions(name: str) -> None:
    """Chooses as for a lesser processor.

    Raises:
        ValueError: this one lacks the instructions, or nobody knows them.
    """
    check(lib.mp_kernels_limit_instructions(name.encode()))


def set_default(use: bool) -> None:
    """Whether passes that are no session's take kernels, on any thread."""
    check(lib.mp_kernels_set_default(int(use)))


def set_thread(use: bool | None) -> None:
    """The same for the passes that this thread runs from now on; None = the default."""
    check(lib.mp_kernels_set_thread(-1 if use is None else int(use)))
