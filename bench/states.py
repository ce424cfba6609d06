"""Do texts with recurrent states keep their bits side by side? llama.cpp's own functions, tiny random models.

Three texts in one context, a sequence and a state each. Every step decodes a chain for each text, right tokens and then
wrong ones, and takes the wrong ones back by its snapshots. Logits of right rows are compared bit by bit with those of
the same text alone, one row at a time. Ways that differ in one thing:

- equal: a llama_decode for each number of rows; cells of wrong rows are left to a sequence that the context has not
- unequal: one llama_decode of chains of any length, which llama.cpp divides itself
- freed: as equal, but the cells of wrong rows are given back, so that others' tokens take them
- one row: no drafts, which needs no snapshots
- aborted: as equal, but now and then a decode of one text is aborted; who took no part goes on

Prints rows compared, rows that differ, and the largest difference.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from rich.console import Console
from rich.table import Table

from maskprobe import cpu_kernels

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

import tiny_models

N_TEXTS, N_SNAPSHOTS, N_PROMPT = 3, 6, 24
NAMES = ("lfm2", "lfm2moe", "nemotron_h", "qwen35", "qwen35moe", "granitehybrid", "falcon-h1", "qwen3next", "mamba")
WAYS = ("equal", "unequal", "freed", "one row", "aborted")
LEFT = N_TEXTS  # the sequence of cells that are left behind
Rows = list[tuple[int, int, int]]  # token, position, sequence


class Passes:
    """A context for so many texts."""

    def __init__(self, model: Any, n_texts: int, n_snapshots: int, n_threads: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 1024, 64, 64
        params.n_seq_max, params.n_rs_seq, params.kv_unified = n_texts, n_snapshots, True
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.ctx = llama_cpp.llama_init_from_model(model, params)
        self.memory = llama_cpp.llama_get_memory(self.ctx)
        self.n_snapshots = llama_cpp.llama_n_rs_seq(self.ctx)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._left = -1  # calls of the abort callback until it aborts
        self._callback = llama_cpp.ggml_abort_callback(self._aborts)
        llama_cpp.llama_set_abort_callback(self.ctx, self._callback, None)

    def _aborts(self, _: ctypes.c_void_p) -> bool:
        self._left -= 1
        return self._left == 0

    def decode(self, rows: Rows, *, abort_after: int = -1) -> np.ndarray[Any, Any] | None:
        """Logits, [rows, n_vocab], None if it was aborted."""
        self._left = abort_after
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, pos, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, pos, 1, True
            batch.seq_id[i][0] = sequence
        code = llama_cpp.llama_decode(self.ctx, batch)
        llama_cpp.llama_batch_free(batch)
        if code == 2:
            return None
        assert code == 0, code
        pointers = [llama_cpp.llama_get_logits_ith(self.ctx, i) for i in range(len(rows))]
        return np.stack([np.ctypeslib.as_array(pointer, (self._n_vocab,)).copy() for pointer in pointers])

    def take_back(self, sequence: int, first_pos: int, *, leave: bool) -> None:
        if leave:
            llama_cpp.llama_memory_seq_cp(self.memory, sequence, LEFT, first_pos, -1)
        assert llama_cpp.llama_memory_seq_rm(self.memory, sequence, first_pos, -1)

    def close(self) -> None:
        llama_cpp.llama_free(self.ctx)


def alone(model: Any, text: Sequence[int], n_snapshots: int, n_threads: int) -> np.ndarray[Any, Any]:
    """Logits of a text, one row at a time."""
    passes = Passes(model, 1, n_snapshots, n_threads)
    found = [passes.decode([(token, pos, 0)]) for pos, token in enumerate(text)]
    passes.close()
    return np.concatenate([one for one in found if one is not None])


class Texts:
    """Texts that are decoded side by side in one way, and what their logits should be."""

    def __init__(self, model: Any, way: str, n_snapshots: int, n_tokens: int, n_threads: int) -> None:
        self.way = way
        self._rng = np.random.default_rng(1)
        self._texts = self._rng.integers(10, 200, (N_TEXTS, n_tokens)).tolist()
        self._right = [alone(model, text, n_snapshots, n_threads) for text in self._texts]
        self._passes = Passes(model, N_TEXTS, n_snapshots, n_threads)
        self._n = [0] * N_TEXTS  # tokens that each has
        self.differences: list[float] = []

    def step(self) -> None:
        """Some of the texts, with chains of one to all lengths."""
        texts = [i for i in range(N_TEXTS) if self._rng.random() < 0.8]
        chains: dict[int, int] = {}
        for i in texts:
            in_prompt, most = self._n[i] < N_PROMPT, self._passes.n_snapshots
            chains[i] = 12 if in_prompt else 1 if self.way == "one row" else 1 + int(self._rng.integers(most + 1))
        lengths = sorted(set(chains.values()))
        if self.way == "unequal":
            self._decode(texts, chains)
            return
        for length in lengths:
            together = [i for i in texts if chains[i] == length]
            if self.way == "aborted" and len(together) == 1 and self._rng.random() < 0.2:
                self._abort(together[0])
                return
            self._decode(together, chains)

    def _rows(self, i: int, n: int, n_right: int) -> Rows:
        text, at = self._texts[i], self._n[i]
        tokens = [text[at + j] if j < n_right else int(self._rng.integers(10, 200)) for j in range(n)]
        return [(token, at + j, i) for j, token in enumerate(tokens)]

    def _decode(self, texts: Sequence[int], chains: dict[int, int]) -> None:
        left = {i: len(self._texts[i]) - self._n[i] for i in texts}
        texts = [i for i in texts if left[i] >= chains[i]]
        n_right = {i: chains[i] if self._n[i] < N_PROMPT else int(self._rng.integers(1, chains[i] + 1)) for i in texts}
        if not texts:
            return
        logits = self._passes.decode([row for i in texts for row in self._rows(i, chains[i], n_right[i])])
        assert logits is not None
        at = 0
        for i in texts:
            right = self._right[i][self._n[i] : self._n[i] + n_right[i]]
            self.differences += np.abs(logits[at : at + n_right[i]] - right).max(axis=1).tolist()
            at += chains[i]
            self._n[i] += n_right[i]
        for i in texts:
            if n_right[i] < chains[i]:
                self._passes.take_back(i, self._n[i], leave=self.way != "freed")

    def _abort(self, i: int) -> None:
        """Only this text begins anew."""
        rows = self._rows(i, 1, 1)
        if self._n[i] < len(self._texts[i]) and self._passes.decode(rows, abort_after=12) is None:
            self._passes.take_back(i, 0, leave=True)
            self._n[i] = 0

    def run(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.step()
        self._passes.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--n-steps", type=int, default=60)
    parser.add_argument("names", nargs="*", default=NAMES)
    args = parser.parse_args()
    llama_cpp._logger.set_verbose(False)
    cpu_kernels.install()  # with which rows of a pass have the bits of one row
    table = Table("model", "snapshots", *WAYS)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            path = tiny_models.make(name, Path(folder) / f"{name}.gguf")
            model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
            probe = Passes(model, 1, N_SNAPSHOTS, 1)
            n_snapshots = probe.n_snapshots
            probe.close()
            cells = []
            for way in WAYS:
                if n_snapshots == 0 and way != "one row":
                    cells.append("")
                    continue
                texts = Texts(model, way, n_snapshots, 6 * args.n_steps, args.n_threads)
                texts.run(args.n_steps)
                found = texts.differences
                n_differ = sum(difference != 0.0 for difference in found)
                cells.append(f"{n_differ} of {len(found)}" + (f", {max(found):.2g}" if n_differ else ""))
            table.add_row(name, str(n_snapshots), *cells)
            llama_cpp.llama_model_free(model)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
