"""What a recurrent state costs and brings: a Qwen3.5 with the state of the 9B in each layer.

First what passes take by how many snapshots llama.cpp keeps, in contexts of its own, in turn. Weights are small and
random, so nearly all of it is the state: per recurrent layer it is what a real model pays too. Then drafts against
plain decoding in turn, by the way back that is chosen: text that does not repeat itself has nothing to draft from and
must not get slower; text that was answered before is known to the history.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import llama_cpp
from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

import tiny_models
from tiny_architectures import N_EMBD, Model
from tiny_recurrent import RECURRENT, SSM_CONV

# Qwen3.5-9B: 32 heads of values and 16 of keys, of 128: 2 MiB of state per recurrent layer.
HEADS, KEY_HEADS, SIZE = 32, 16, 128
INNER = HEADS * SIZE
CONV = INNER + 2 * KEY_HEADS * SIZE
WIDE = {
    "attn_qkv.weight": (CONV, N_EMBD),
    "attn_gate.weight": (INNER, N_EMBD),
    "ssm_conv1d.weight": (CONV, SSM_CONV),
    "ssm_dt.bias": (HEADS,),
    "ssm_a": (HEADS,),
    "ssm_beta.weight": (HEADS, N_EMBD),
    "ssm_alpha.weight": (HEADS, N_EMBD),
    "ssm_norm.weight": (SIZE,),
    "ssm_out.weight": (N_EMBD, INNER),
}


def write(path: Path) -> Path:
    """The tiny Qwen3.5 with the recurrent layers of the 9B's state."""
    tiny = RECURRENT["qwen35"]
    wide = {
        name: WIDE.get(name.split(".", 2)[2], shape) if name.startswith("blk.") else shape
        for name, shape in tiny.tensors.items()
    }
    keys = {
        **tiny.keys,
        "ssm.inner_size": INNER,
        "ssm.state_size": SIZE,
        "ssm.time_step_rank": HEADS,
        "ssm.group_count": KEY_HEADS,
    }
    return tiny_models.write(Model(tiny.arch, "a large state", wide, keys), path)


SNAPSHOTS = (0, 1, 4, 8, 16)
ROWS = (1, 2, 4, 8)
N_CTX = 1024


class Passes:
    """A context with so many snapshots, whose passes are timed."""

    def __init__(self, model: object, n_snapshots: int, n_threads: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.n_rs_seq = N_CTX, 1, n_snapshots
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.ctx = llama_cpp.llama_init_from_model(model, params)
        self.n_past = 0
        self.ms: dict[int, list[float]] = {n: [] for n in ROWS}

    def time(self, n: int) -> None:
        """A pass of n rows, twice: the first one builds its graph."""
        if self.n_past + 2 * n > N_CTX:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)
            self.n_past = 0
        for _ in range(2):
            start = time.perf_counter()
            tokens = (llama_cpp.llama_token * n)(*range(5, 5 + n))
            assert llama_cpp.llama_decode(self.ctx, llama_cpp.llama_batch_get_one(tokens, n)) == 0
            llama_cpp.llama_synchronize(self.ctx)
            ms = 1e3 * (time.perf_counter() - start)
        self.n_past += 2 * n
        self.ms[n].append(ms)


def by_snapshots(path: Path, n_threads: int, rounds: int) -> Table:
    """Milliseconds of passes by snapshots and rows."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    passes = {n: Passes(model, n, n_threads) for n in SNAPSHOTS}
    for _ in range(rounds):
        for n_rows in ROWS:
            for one in passes.values():
                one.time(n_rows)
    table = Table("snapshots", *(f"{n} rows, ms" for n in ROWS))
    for n, one in passes.items():
        table.add_row(str(n), *(f"{statistics.median(one.ms[n_rows]):.2f}" for n_rows in ROWS))
        llama_cpp.llama_free(one.ctx)
    llama_cpp.llama_model_free(model)
    return table


def against_plain(path: Path, n_threads: int, rounds: int, max_tokens: int) -> list[str]:
    """The way back, then speed of plain decoding's and tokens per pass: of new text, of text that is known."""
    with MaskProbeLlama(path, n_ctx=N_CTX, n_threads=n_threads) as llm:
        n = llm.drafting.n_snapshots
        cells = [f"{n} snapshots" if n else "copies"]
        for known in (False, True):
            ratios, lengths = [], []
            for i in range(rounds):
                prompt = [(31 * j + (0 if known else 7 * i)) % 250 for j in range(40)]
                options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0, "cache_prompt": False}
                plain = llm.generate(prompt, speculate=False, **options).stats
                ours = llm.generate(prompt, **options).stats
                ratios.append(ours.predicted_per_second / plain.predicted_per_second)
                lengths.append(ours.acceptance_length)
            cells += [f"{statistics.median(ratios):.3f}", f"{statistics.median(lengths):.2f}"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    llama_cpp._logger.set_verbose(False)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        large = write(Path(folder) / "large.gguf")
        console.print(by_snapshots(large, args.n_threads, 5 * args.rounds))
        table = Table("way back", "new text, of plain", "tokens/pass", "known text, of plain", "tokens/pass")
        table.add_row(*against_plain(large, args.n_threads, args.rounds, args.max_tokens))
    console.print(table)


if __name__ == "__main__":
    main()
