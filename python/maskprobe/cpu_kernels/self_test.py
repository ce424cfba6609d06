"""Checks our CPU kernels against llama.cpp's own, bit by bit. Run as a program, in a process that may crash:

    python -m maskprobe.cpu_kernels.self_test

prints one JSON object: "differences" has the kernels by name, and for each what is wrong with it, null if nothing is;
"for_prompts" names those that compute a prompt's rows faster than llama.cpp's own, with the same bits. Every kernel is
tried with every number of rows, several sizes and numbers of threads; the reference is llama.cpp's own kernel on one
row at a time. Knows kernels and products; leaves what follows from the verdict to cpu_kernels.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..core.kernels import Kernel, allow, attach, kernels, limit_instructions, set_thread
from ..llamacpp.ggml import Floats, Halves, Product, attention

FORMAT = 3  # raise it when more, or something else, is checked
_ROWS = (*range(1, 21), 33, 64)
_THREADS = (1, 2, 3)  # in turn
# Heads, those that the cache has, elements of one, and keys: below the 512 from which llama.cpp's own loop is split
# among threads.
_CACHES = ((3, 1, 64, 37), (6, 2, 64, 300), (4, 4, 128, 130), (8, 2, 128, 511), (4, 1, 256, 100), (2, 1, 512, 65))
_MOST_ROWS = 11
# Where the exponentials of C libraries part, with fused multiplications and without them.
_TELLING = float.fromhex("-0x1.f8cbb2p+5")

_PROMPT_ROWS = (66, 67, 69, 131)
_GAIN = 0.9  # of llama.cpp's own time, at most, to be used for prompts


@dataclass(frozen=True)
class Verdict:
    """What the check found."""

    differences: dict[str, str | None]  # by kernel; None = there are none
    for_prompts: tuple[str, ...] = ()


def _sizes(kernel: Kernel) -> Iterator[tuple[int, int]]:
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


def difference(kernel: Kernel, rng: np.random.Generator) -> str | None:
    """Where a kernel's bits are not those of llama.cpp's own, None if nowhere."""
    of_attention = kernel.name.startswith("attention")
    return _attention_difference(kernel, rng) if of_attention else _product_difference(kernel, rng)


@dataclass(frozen=True)
class _Attention:
    """Queries and a cache, of a kernel's type."""

    kernel: Kernel
    q: Floats
    k: Floats
    v: Floats
    mask: Halves
    sinks: Floats | None

    def compute(self, rows: slice, n_threads: int = 1) -> Floats:
        return attention(
            self.q[:, rows],
            self.k,
            self.v,
            self.mask[rows],
            cap=30.0 if self.kernel.name.endswith("capped") else 0.0,
            sinks=self.sinks,
            type_=self.kernel.type,
            n_threads=n_threads,
        )


def _attentions(kernel: Kernel, rng: np.random.Generator) -> Iterator[_Attention]:
    for heads, cached_heads, size, n_keys in _CACHES:
        q = 2 * rng.standard_normal((heads, _MOST_ROWS, size)).astype(np.float32)
        k, v = rng.standard_normal((2, cached_heads, n_keys, size)).astype(np.float32)
        kinds = np.array([-np.inf, -1.25, 0, 0, 0], np.float16)
        mask = kinds[rng.integers(0, len(kinds), (_MOST_ROWS, n_keys))]
        if kernel.name == "attention f16":
            q[0, 0], k[0, :3] = _one_score(_TELLING, size)
            mask[0, :3] = 0
        yield _Attention(kernel, q, k, v, mask, None)
        yield _Attention(kernel, q, k, v, mask, 3 * rng.standard_normal(heads).astype(np.float32))


def _attention_difference(kernel: Kernel, rng: np.random.Generator) -> str | None:
    for turn, case in enumerate(_attentions(kernel, rng)):
        set_thread(False)
        expected = np.concatenate([case.compute(slice(row, row + 1)) for row in range(_MOST_ROWS)])
        set_thread(True)
        for n_rows in (1, 2, 3, 5, 8, _MOST_ROWS):
            n_threads = _THREADS[(turn + n_rows) % len(_THREADS)]
            before = kernel.n_used()
            got = case.compute(slice(n_rows), n_threads)
            where = f"{n_rows} rows of {len(case.q)} heads of {case.q.shape[2]} over {len(case.mask[0])} keys"
            where += "" if case.sinks is None else " with sinks"
            if kernel.n_used() == before:
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


def _product_difference(kernel: Kernel, rng: np.random.Generator) -> str | None:
    for turn, (k, n) in enumerate(_sizes(kernel)):
        product = Product(kernel.type, _random(rng, n, k), repacked=kernel.repacked)
        x = _random(rng, max(_ROWS), k)
        set_thread(False)
        expected = np.concatenate([product.compute(row[None]) for row in x])
        set_thread(True)
        for rows in _ROWS:
            n_threads = _THREADS[(turn + rows) % len(_THREADS)]
            before = kernel.n_used()
            got = product.compute(x[:rows], n_threads)
            if (kernel.n_used() > before) != (rows >= kernel.fewest_rows):
                return f"it was not asked for {rows} rows of {k} x {n} weights"
            if got.tobytes() != expected[:rows].tobytes():
                return f"{rows} rows of {k} x {n} weights differ from llama.cpp's own with {n_threads} threads"
        product.close()
    return _experts_difference(kernel, rng)


def _experts_difference(kernel: Kernel, rng: np.random.Generator) -> str | None:
    n_experts, n, k = 5, 3 * kernel.n_multiple, 2 * kernel.k_multiple
    product = Product(kernel.type, _random(rng, n_experts * n, k).reshape(n_experts, n, k), repacked=kernel.repacked)
    for turn, (tokens, slots, n_used) in enumerate(((1, 1, 2), (4, 1, 3), (7, 2, 2), (20, 4, 4))):
        x = _random(rng, tokens * slots, k).reshape(tokens, slots, k)
        ids = np.array([rng.permutation(n_experts)[:n_used] for _ in range(tokens)], np.int32)
        set_thread(False)
        expected = np.concatenate([product.compute_experts(*one) for one in zip(x[:, None], ids[:, None], strict=True)])
        set_thread(True)
        before = kernel.n_used()
        got = product.compute_experts(x, ids, _THREADS[turn % len(_THREADS)])
        if (kernel.n_used() > before) != (tokens >= kernel.fewest_rows):
            return f"it was not asked for {tokens} tokens sent to experts"
        if got.tobytes() != expected.tobytes():
            return f"{tokens} tokens sent to {n_used} experts each differ from llama.cpp's own"
    product.close()
    return None


def pays_for_prompts(kernel: Kernel, rng: np.random.Generator) -> bool:
    """Whether a prompt's products are faster by this kernel, with the bits of llama.cpp's own for as many rows."""
    if kernel.name.startswith("attention"):
        return False
    product = Product(kernel.type, _random(rng, 512, 1024), repacked=kernel.repacked)
    x = _random(rng, max(_PROMPT_ROWS), 1024)

    def timed(rows: int, use: bool) -> tuple[float, bytes]:
        set_thread(use)
        began = time.perf_counter()
        result = product.compute(x[:rows])
        return time.perf_counter() - began, result.tobytes()

    same_bits = all(timed(rows, False)[1] == timed(rows, True)[1] for rows in _PROMPT_ROWS)
    taken = [timed(max(_PROMPT_ROWS), turn % 2 == 1)[0] for turn in range(8)] if same_bits else []
    product.close()
    return same_bits and min(taken[1::2]) < _GAIN * min(taken[::2])


def verdict() -> Verdict:
    """What is wrong with each kernel, and what is used for prompts; all are allowed afterwards."""
    attach()
    rng = np.random.default_rng(0)
    differences: dict[str, str | None] = {}
    for_prompts = []
    for kernel in kernels():
        allow([kernel], [kernel])  # of two for the same weights, this one
        differences[kernel.name] = difference(kernel, rng)
        if differences[kernel.name] is None and pays_for_prompts(kernel, rng):
            for_prompts.append(kernel.name)
    allow(kernels())
    return Verdict(differences, tuple(for_prompts))


def main(instructions: str | None = None) -> None:
    """Prints the verdict on the kernels of an instruction set, None = the best that this processor has."""
    if instructions is not None:
        limit_instructions(instructions)
    print(json.dumps(dataclasses.asdict(verdict())))


if __name__ == "__main__":
    main(*sys.argv[1:])
