"""What a pass of a few rows costs with llama.cpp's own CPU kernels and with maskprobe's, in one process, interleaved.

Every pass computes the logits of all its rows. Ratios are to llama.cpp's own one-row pass of the same model in the same
run; "same bits" compares the logits with those of llama.cpp's own one-row passes.

    python bench/kernels.py Q4_0 Q4_1 Q8_0 F16          # the embedded model in these types
    python bench/kernels.py 8B:Q4_0 1.7B:Q4_K_M         # random weights of these sizes, see bench/sizes.py
    python bench/kernels.py --prompts 1000 Q4_0         # prompts of so many tokens, in batches of 512
    python bench/kernels.py --products                  # one matrix in every type, one thread
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

import models
import sizes
from maskprobe import cpu_kernels
from maskprobe.core.kernels import allow, kernels, limit_instructions, set_thread
from maskprobe.llamacpp.ggml import Product
from maskprobe.llamacpp.installed import llama_cpp
from maskprobe.llamacpp.logs import captured_log

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class Context:
    """A model and passes of it behind so many tokens in its KV cache."""

    def __init__(self, path: Path, n_threads: int, n_past: int, n_batch: int = 64) -> None:
        self.n_threads, self.n_past = n_threads, n_past
        with captured_log(verbose=False):
            self.model = llama_cpp.llama_model_load_from_file(
                str(path).encode(), llama_cpp.llama_model_default_params()
            )
            params = llama_cpp.llama_context_default_params()
            params.n_ctx, params.n_batch, params.n_ubatch = n_past + 2 * max(ROWS), n_batch, n_batch
            params.n_threads = params.n_threads_batch = n_threads
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
            self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(n_batch, 0, 1)
        rng = np.random.default_rng(0)
        self.tokens = rng.integers(0, min(self.n_vocab, 30000), n_past + max(ROWS))
        for start in range(0, n_past, n_batch):
            self.decode(start, min(n_batch, n_past - start), last_logits_only=True)

    def decode(self, start: int, n: int, *, last_logits_only: bool = False) -> float:
        """Milliseconds of a pass of n rows at the given position."""
        self.batch.n_tokens = n
        for i in range(n):
            self.batch.token[i], self.batch.pos[i] = int(self.tokens[start + i]), start + i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            self.batch.logits[i] = int(not last_logits_only or i == n - 1)
        began = time.perf_counter()
        code = llama_cpp.llama_decode(self.ctx, self.batch)
        llama_cpp.llama_synchronize(self.ctx)
        assert code == 0, code
        return 1e3 * (time.perf_counter() - began)

    def logits(self, n: int) -> np.ndarray:
        """The logits of the last pass, [n, n_vocab]."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.ctx), shape=(n, self.n_vocab)).copy()

    def cut(self) -> None:
        """Forgets all behind the first tokens."""
        llama_cpp.llama_memory_seq_rm(self.memory, 0, self.n_past, -1)

    def rows(self, n: int, kernels: bool, repeat: int = 1) -> list[float]:
        """Milliseconds of passes of n rows."""
        set_thread(kernels)
        taken = []
        for _ in range(repeat):
            self.cut()
            taken.append(self.decode(self.n_past, n))
        set_thread(None)
        return taken

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.ctx)
        llama_cpp.llama_model_free(self.model)


def one_by_one(context: Context) -> np.ndarray:
    """The logits of llama.cpp's own one-row passes by one thread, [rows, n_vocab]."""
    context.cut()
    llama_cpp.llama_set_n_threads(context.ctx, 1, 1)
    logits = []
    for i in range(max(ROWS)):
        context.decode(context.n_past + i, 1)
        logits.append(context.logits(1)[0])
    llama_cpp.llama_set_n_threads(context.ctx, context.n_threads, context.n_threads)
    return np.array(logits)


def measure(path: Path, n_threads: int, n_past: int, turns: int) -> dict[int, dict[str, object]]:
    """Milliseconds of stock and kernels by rows, and whether their bits are those of one-row passes."""
    context = Context(path, n_threads, n_past)
    try:
        reference = one_by_one(context)
        taken: dict[int, tuple[list[float], list[float]]] = {n: ([], []) for n in ROWS}
        same: dict[int, list[bool]] = {}
        for n in ROWS:
            same[n] = []
            for kernels in (False, True):
                context.rows(n, kernels)
                same[n].append(bool(np.array_equal(context.logits(n), reference[:n])))
        for _ in range(turns):
            for n in ROWS:
                for kernels in (False, True):
                    # The first pass of another size makes llama.cpp build its graph anew.
                    taken[n][kernels].extend(context.rows(n, kernels, 4)[1:])
    finally:
        context.close()
    return {
        n: {
            "stock_ms": median(taken[n][0]),
            "kernels_ms": median(taken[n][1]),
            "same_bits_stock": same[n][0],
            "same_bits_kernels": same[n][1],
        }
        for n in ROWS
    }


@contextlib.contextmanager
def model_file(name: str) -> Iterator[Path]:
    """A type of the embedded model, SIZE:TYPE of random weights, or a path."""
    size, _, kind = name.partition(":")
    if size in sizes.SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            yield sizes.random_model(Path(folder), size, kind)
    elif name in models.NAMES:
        yield models.quantized(name)
    else:
        yield Path(name)


def show(console: Console, title: str, result: dict[int, dict[str, object]]) -> None:
    table = Table("rows", "stock ms", "kernels ms", "stock", "kernels", "same bits: stock", "kernels", title=title)
    base = float(result[1]["stock_ms"])  # type: ignore[arg-type]
    for n, row in result.items():
        stock, kernels = float(row["stock_ms"]), float(row["kernels_ms"])  # type: ignore[arg-type]
        flags = ["yes" if row[f"same_bits_{who}"] else "no" for who in ("stock", "kernels")]
        table.add_row(str(n), f"{stock:.2f}", f"{kernels:.2f}", f"{stock / base:.2f}", f"{kernels / base:.2f}", *flags)
    console.print(table)


def prompts(path: Path, n_threads: int, n_tokens: int) -> tuple[float, float]:
    """Milliseconds a token of a prompt, stock and kernels."""
    context = Context(path, n_threads, n_tokens, n_batch=512)
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(8):
        set_thread(turn % 2 == 1)
        llama_cpp.llama_memory_clear(context.memory, True)
        starts = range(0, n_tokens, 512)
        passes = [context.decode(start, min(512, n_tokens - start), last_logits_only=True) for start in starts]
        if turn > 1:  # the first of each are warm-up
            taken[turn % 2].append(sum(passes) / n_tokens)
    set_thread(None)
    context.close()
    return median(taken[0]), median(taken[1])


def products(console: Console) -> None:
    """Our time over llama.cpp's for one matrix, by kernel and rows; a dash where llama.cpp's own is taken."""
    rows, size = (1, 2, 4, 8, 16, 128), 2048
    rng = np.random.default_rng(0)
    table = Table("kernel", *map(str, rows))
    allow(kernels(), kernels())
    for kernel in (one for one in kernels() if not one.name.startswith("attention")):
        product = Product(kernel.type, rng.standard_normal((size, size)).astype(np.float32), repacked=kernel.repacked)
        cells = []
        for n in rows:
            x = rng.standard_normal((n, size)).astype(np.float32)
            taken: tuple[list[float], list[float]] = ([], [])
            for turn in range(2 * (40 if n < 16 else 8)):
                set_thread(turn % 2 == 1)
                began = time.perf_counter()
                product.compute(x)
                taken[turn % 2].append(time.perf_counter() - began)
            cells.append("-" if n < kernel.fewest_rows else f"{min(taken[1]) / min(taken[0]):.2f}")
        product.close()
        table.add_row(kernel.name, *cells)
    set_thread(None)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--prompts", type=int, metavar="TOKENS", help="prompts instead of passes of a few rows")
    parser.add_argument("--products", action="store_true", help="single products in every type")
    parser.add_argument("--n-threads", type=int, default=2)
    parser.add_argument("--cells", type=int, default=40, help="tokens in the KV cache")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--instructions", help="at most these: avx2, avx2-vnni, avx512-vnni; neon-dotprod, neon-i8mm")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.instructions:
        limit_instructions(args.instructions)
    status = cpu_kernels.prepare()
    console = Console(width=120)
    console.print(f"{status.instructions}: {', '.join(status.kernels)} {status.reason or ''}", highlight=False)
    if args.products:
        products(console)
    results = {}
    for name in args.models:
        with model_file(name) as path:
            if args.prompts:
                stock, ours = prompts(path, args.n_threads, args.prompts)
                console.print(f"{name}: {stock:.2f} and {ours:.2f} ms a token, {stock / ours:.2f}", highlight=False)
                continue
            results[name] = measure(path, args.n_threads, args.cells, args.turns)
        show(console, f"{name}, {args.n_threads} threads", results[name])
    if args.json:
        args.json.write_text(json.dumps({"instructions": status.instructions, "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
