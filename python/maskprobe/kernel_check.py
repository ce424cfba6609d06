"""Checks our CPU kernels against llama.cpp's own, bit by bit. Run as a program, in a process that may crash:

    python -m maskprobe.kernel_check

prints one JSON object: the kernels by name, and for each what is wrong with it, null if nothing is. Every kernel is
tried with every number of rows, several sizes and numbers of threads; the reference is llama.cpp's own kernel on one
row at a time. Knows kernels and products; leaves what follows from the verdict to cpu_kernels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .binding import check, ffi, function_address, lib
from .ggml import Floats, Product

FORMAT = 1  # raise it when more, or something else, is checked
_ROWS = (*range(1, 21), 33, 64)
_THREADS = (1, 2, 3)

Verdict = dict[str, str | None]


@dataclass(frozen=True)
class KernelInfo:
    """What the core says of a kernel."""

    index: int
    name: str
    type: int
    repacked: bool
    k_multiple: int
    n_multiple: int
    fewest_rows: int
    most_rows: int


def kernels() -> list[KernelInfo]:
    """The kernels that the present instruction set has."""
    found: list[KernelInfo] = []
    info = ffi.new("mp_kernel *")
    while lib.mp_kernels_get(len(found), info) == lib.MP_OK:
        found.append(
            KernelInfo(
                len(found),
                ffi.string(info.name).decode(),
                info.type,
                bool(info.repacked),
                info.k_multiple,
                info.n_multiple,
                info.fewest_rows,
                info.most_rows,
            )
        )
    return found


def attach() -> None:
    """Puts the kernels in the way of ggml's CPU backend, for good; none is used before it is allowed.

    Raises:
        BindingError: this build of ggml does not let them in; the message says why.
    """
    names: list[str] = []
    while (name := lib.mp_kernels_required_function(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    c_names = [ffi.new("char[]", name.encode()) for name in names]
    addresses = [ffi.cast("void *", function_address(name)) for name in names]
    check(lib.mp_kernels_attach(c_names, addresses, len(names)))


def _sizes(kernel: KernelInfo) -> Iterator[tuple[int, int]]:
    """Elements of a row and columns: one block and several, whole vectors of columns and what is left over."""
    yield kernel.k_multiple, kernel.n_multiple
    yield 3 * kernel.k_multiple, 5 * kernel.n_multiple if kernel.n_multiple > 1 else 37
    yield max(kernel.k_multiple, 256), 96


def _random(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Values with outliers, and here and there a row of zeros."""
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    values *= np.exp(rng.uniform(-3, 3, (rows, 1))).astype(np.float32)
    values[rng.random(values.shape) < 0.01] *= 50
    values[rng.random(rows) < 0.05] = 0
    return values


def difference(kernel: KernelInfo, rng: np.random.Generator) -> str | None:
    """Where a kernel's bits are not those of llama.cpp's own, None if nowhere."""
    for k, n in _sizes(kernel):
        product = Product(kernel.type, _random(rng, n, k), repacked=kernel.repacked)
        x = _random(rng, max(_ROWS), k)
        check(lib.mp_kernels_set_thread(0))
        expected = np.concatenate([product.compute(row[None]) for row in x])
        check(lib.mp_kernels_set_thread(1))
        for rows in _ROWS:
            for n_threads in _THREADS:
                before = lib.mp_kernels_n_used(kernel.index)
                got = product.compute(x[:rows], n_threads)
                if (lib.mp_kernels_n_used(kernel.index) > before) != (rows >= kernel.fewest_rows):
                    return f"it was not asked for {rows} rows of {k} x {n} weights"
                if got.tobytes() != expected[:rows].tobytes():
                    return f"{rows} rows of {k} x {n} weights differ from llama.cpp's own with {n_threads} threads"
        product.close()
    return None


def verdict() -> Verdict:
    """What is wrong with each kernel; all are allowed afterwards."""
    attach()
    check(lib.mp_kernels_allow(2**32 - 1))
    rng = np.random.default_rng(0)
    return {kernel.name: difference(kernel, rng) for kernel in kernels()}


def main(instructions: str | None = None) -> None:
    """Prints the verdict on the kernels of an instruction set, None = the best that this processor has."""
    if instructions is not None:
        check(lib.mp_kernels_limit_instructions(instructions.encode()))
    print(json.dumps(verdict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
