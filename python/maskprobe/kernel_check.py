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
from .ggml import Floats, Product, attention

FORMAT = 3  # raise it when more, or something else, is checked
_ROWS = (*range(1, 21), 33, 64)
_THREADS = (1, 2, 3)
# Heads, those that the cache has, elements of one, and keys: below the 512 from which llama.cpp's own loop is split
# among threads.
_CACHES = ((3, 1, 64, 37), (6, 2, 64, 300), (4, 4, 128, 130), (8, 2, 128, 511))
_MOST_ROWS = 11
# Where the exponentials of C libraries part, with fused multiplications and without them.
_TELLING = float.fromhex("-0x1.f8cbb2p+5")

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
    of_attention = kernel.name.startswith("attention")
    return _attention_difference(kernel, rng) if of_attention else _product_difference(kernel, rng)


def _attention_difference(kernel: KernelInfo, rng: np.random.Generator) -> str | None:
    for heads, cached_heads, size, n_keys in _CACHES:
        q = 2 * rng.standard_normal((heads, _MOST_ROWS, size)).astype(np.float32)
        k, v = rng.standard_normal((2, cached_heads, n_keys, size)).astype(np.float16)
        kinds = np.array([-np.inf, -1.25, 0, 0, 0], np.float16)
        mask = kinds[rng.integers(0, len(kinds), (_MOST_ROWS, n_keys))]
        q[0, 0], k[0, :3] = _one_score(_TELLING, size)
        mask[0, :3] = 0
        check(lib.mp_kernels_set_thread(0))
        rows = range(_MOST_ROWS)
        expected = np.concatenate([attention(q[:, r : r + 1], k, v, mask[r : r + 1], 1.0) for r in rows])
        check(lib.mp_kernels_set_thread(1))
        for n_rows in (1, 2, 3, 5, 8, _MOST_ROWS):
            for n_threads in _THREADS:
                before = lib.mp_kernels_n_used(kernel.index)
                got = attention(q[:, :n_rows], k, v, mask[:n_rows], 1.0, n_threads)
                where = f"{n_rows} rows of {heads} heads of {size} over {n_keys} keys"
                if lib.mp_kernels_n_used(kernel.index) == before:
                    return f"it was not asked for {where}"
                if got.tobytes() != expected[:n_rows].tobytes():
                    return f"{where} differ from llama.cpp's own with {n_threads} threads"
    return None


def _one_score(score: float, size: int) -> tuple[Floats, Floats]:
    """A query and three keys with the scores 0, a given one, and 0."""
    query, keys = np.zeros(size, np.float32), np.zeros((3, size), np.float32)
    rest = np.float32(score)
    for i in range(size):  # half floats that add up to it
        query[i], keys[1, i] = 1.0, np.float16(rest)
        rest -= np.float32(keys[1, i])
    return query, keys


def _product_difference(kernel: KernelInfo, rng: np.random.Generator) -> str | None:
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
    rng = np.random.default_rng(0)
    found: Verdict = {}
    for kernel in kernels():
        check(lib.mp_kernels_allow(1 << kernel.index))  # of two for the same weights, this one
        found[kernel.name] = difference(kernel, rng)
    check(lib.mp_kernels_allow(2**32 - 1))
    return found


def main(instructions: str | None = None) -> None:
    """Prints the verdict on the kernels of an instruction set, None = the best that this processor has."""
    if instructions is not None:
        check(lib.mp_kernels_limit_instructions(instructions.encode()))
    print(json.dumps(verdict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
