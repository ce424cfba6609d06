"""What a pass costs on top of a bare llama_decode of the same rows.

The floor: a block of as many rows, laid out as a root with one mask per node, decoded over and over by
llama_cpp alone at the same context fill. Host time is everything in a pass that is not llama_decode. The two
are measured in turn in one run, so that the machine's mood meets both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import llama_cpp
import numpy as np
from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation
from models import quantized

PROMPT = "Write a long story about a lighthouse keeper who finds a letter in a bottle."


class BareDecode:
    """llama_decode of embedding rows in a context of its own, with no bookkeeping between calls."""

    def __init__(self, path: Path, n_ctx: int, n_past: int, n_threads: int) -> None:
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = n_ctx, n_threads, n_threads
        params.n_batch = params.n_ubatch = 512
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified, params.swa_full = True, True
        params.n_seq_max = 32
        self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.n_embd = llama_cpp.llama_model_n_embd(self.model)
        self.n_past = n_past
        rng = np.random.default_rng(0)
        batch = llama_cpp.llama_batch_init(n_past, 0, 1)
        batch.n_tokens = n_past
        for i, token in enumerate(rng.integers(0, 1000, n_past)):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = int(token), i, 1, 0
            batch.logits[i] = i == n_past - 1
        llama_cpp.llama_decode(self.ctx, batch)
        llama_cpp.llama_batch_free(batch)

    def seconds(self, rows: int) -> float:
        """One call with so many rows, half of them leaves that only see the prefix and the first row."""
        leaves = max(1, rows // 2)
        batch = llama_cpp.llama_batch_init(rows, self.n_embd, leaves)
        batch.n_tokens = rows
        for row in range(rows):
            root = row == 0
            batch.pos[row] = self.n_past + (0 if root else 1)
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = 1
        embd = np.ctypeslib.as_array(batch.embd, (rows * self.n_embd,))
        embd[:] = np.random.default_rng(1).standard_normal(rows * self.n_embd) * 0.1
        start = time.perf_counter()
        code = llama_cpp.llama_decode(self.ctx, batch)
        llama_cpp.llama_synchronize(self.ctx)
        elapsed = time.perf_counter() - start
        llama_cpp.llama_memory_seq_rm(self.memory, 0, self.n_past, -1)
        llama_cpp.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama_decode: {code}")
        return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--n-ctx", type=int, nargs="+", default=[4096, 32768])
    parser.add_argument("--trees", type=int, nargs="+", default=[4, 14, 29])
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    llama_cpp._logger.set_verbose(False)
    table = Table("n_ctx", "rows", "llama_decode bare, ms", "in a pass, ms", "ratio", "host, ms/pass", "host share")
    figures = []
    for n_ctx in args.n_ctx:
        path = quantized(args.type)
        bare = BareDecode(path, n_ctx, n_past=96, n_threads=args.n_threads)
        with MaskProbeLlama(path, n_ctx=n_ctx, n_threads=args.n_threads) as llm:
            ids = llm.apply_chat_template([{"role": "user", "content": PROMPT}])
            for width in args.trees:
                speculation = Speculation(tree=(width,))
                rounds = []
                for _ in range(args.rounds):
                    floor = statistics.median(bare.seconds(speculation.rows()) for _ in range(15))
                    stats = llm.generate(
                        ids, max_tokens=args.max_tokens, temperature=0.0, speculate=speculation, cache_prompt=False
                    ).stats
                    per_row = stats.decode_ms / stats.rows
                    rounds.append(
                        {
                            "bare_ms": 1e3 * floor,
                            "decode_ms": per_row * speculation.rows(),
                            "host_ms": stats.host_ms / stats.passes,
                            "host_share": stats.host_ms / stats.predicted_ms,
                        }
                    )
                row = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                figures.append({"n_ctx": n_ctx, "rows": speculation.rows(), **row})
                table.add_row(
                    str(n_ctx),
                    str(speculation.rows()),
                    f"{row['bare_ms']:.1f}",
                    f"{row['decode_ms']:.1f}",
                    f"{row['decode_ms'] / row['bare_ms']:.3f}",
                    f"{row['host_ms']:.3f}",
                    f"{row['host_share']:.2%}",
                )
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
