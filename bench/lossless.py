"""Token equality with plain decoding done by a separate reference: llama_cpp's low-level API, row by row.

At a first difference the reference's gap between its two best logits is printed: where kernels round
differently by batch shape (F16, F32, K-quants), it must lie within their noise. With --out each answer is written down
as it comes, and a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.bench.prompts import choose, read_prompts
from maskprobe.generation.sampling import Sampling
from maskprobe.llamacpp.vocabulary import Vocabulary
from models import quantized

TREES = {
    "4": Speculation(tree=(4,)),
    "14": Speculation(tree=(14,)),
    "29": Speculation(tree=(29,)),
    "15x4": Speculation(masks=2, tree=(15, 4)),
    "7x5x2": Speculation(masks=3, tree=(7, 5, 2)),
    "dynamic-60": Speculation(masks=2, tree="dynamic", block=60),
    "mixed-10": Speculation(budget=10),
    "auto": Speculation(),
}


class Reference:
    """Plain decoding: the prompt in n_batch pieces, then one row at a time."""

    def __init__(self, path: Path, n_ctx: int, n_batch: int = 512) -> None:
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, n_batch
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.n_batch = n_batch

    def generate(self, prompt: Sequence[int], n: int, sampling: Sampling) -> tuple[list[int], list[float]]:
        """Tokens, and the gap between the two best logits at each."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)
        tokens: list[int] = []
        gaps: list[float] = []
        pieces = [list(prompt[i : i + self.n_batch]) for i in range(0, len(prompt), self.n_batch)]
        with closing(sampling.chain(Vocabulary(self.vocab))) as chain:
            while len(tokens) < n:
                for piece in pieces:
                    ids = (llama_cpp.llama_token * len(piece))(*piece)
                    if llama_cpp.llama_decode(self.ctx, llama_cpp.llama_batch_get_one(ids, len(piece))):
                        raise RuntimeError("llama_decode failed")
                row = ctypes.cast(
                    llama_cpp.llama_get_logits_ith(self.ctx, -1), ctypes.POINTER(ctypes.c_float * self.n_vocab)
                )
                logits = np.frombuffer(row.contents, np.float32)
                best = np.partition(logits, -2)[-2:]
                if chain.handle is None:
                    token = int(np.argmax(logits))
                else:
                    token = llama_cpp.llama_sampler_sample(chain.handle, self.ctx, -1)
                if llama_cpp.llama_vocab_is_eog(self.vocab, token):
                    break
                tokens.append(token)
                gaps.append(float(best[1] - best[0]))
                pieces = [[token]]
        return tokens, gaps


Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=["Q4_0", "Q4_1", "Q8_0"])
    parser.add_argument("--trees", nargs="+", default=list(TREES), choices=TREES)
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0.0, 0.8])
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--out", type=Path, help="a JSON line for each answer; those that it has are not asked again")
    args = parser.parse_args()

    llama_cpp._logger.set_verbose(False)
    lines = args.out.read_text().splitlines() if args.out is not None and args.out.exists() else []
    records: list[Record] = [json.loads(line) for line in lines]
    for kind in args.types:
        for record in answers(args, kind, {key(one) for one in records}):
            records.append(record)
            if args.out is not None:
                with args.out.open("a") as file:
                    file.write(json.dumps(record) + "\n")
    show(records)


def key(record: Record) -> tuple[Any, ...]:
    """What an answer is to: the same of one that is to be made and of one that was."""
    return tuple(record[name] for name in ("type", "temperature", "tree", "prompt", "max_tokens"))


def answers(args: argparse.Namespace, kind: str, done: set[tuple[Any, ...]]) -> Iterator[Record]:
    """Answers of models of one type that are not done yet, each held to the reference's."""
    reference = Reference(quantized(kind), n_ctx=2048)
    with MaskProbeLlama(quantized(kind), n_ctx=2048, n_threads=1) as llm:
        cases = choose(llm, read_prompts(args.prompts), args.limit, 800)
        for temperature in args.temperatures:
            shared = {"type": kind, "temperature": temperature, "max_tokens": args.max_tokens}
            console = Console(stderr=True)
            for case, ids in track(cases, f"{kind}, temperature {temperature}", console=console, transient=True):
                wanted = [shared | {"prompt": case.question_id, "tree": tree} for tree in args.trees]
                wanted = [one for one in wanted if key(one) not in done]
                if wanted:
                    sampling = Sampling(temperature=temperature, seed=42)
                    expected = reference.generate(ids, args.max_tokens, sampling)
                    yield from (one | compared(llm, ids, one, expected) for one in wanted)


def compared(llm: MaskProbeLlama, ids: list[int], one: Record, expected: tuple[list[int], list[float]]) -> Record:
    """Our answer beside the expected tokens, whose gaps come with them."""
    tokens, gaps = expected
    options: Any = {"max_tokens": one["max_tokens"], "temperature": one["temperature"], "seed": 42}
    out = llm.generate(ids, speculate=TREES[one["tree"]], cache_prompt=False, **options)
    record: Record = {"tokens": len(out.tokens), "accepted": out.stats.draft_n_accepted, "gap": None}
    if out.tokens != tokens:
        same = [a == b for a, b in zip(tokens, out.tokens, strict=False)]
        at = same.index(False) if False in same else min(len(same), len(gaps) - 1)
        record["gap"] = round(gaps[at], 4)
    return record


def show(records: Sequence[Record]) -> None:
    """A line for each type, temperature and tree."""
    table = Table("type", "temperature", "tree", "equal", "tokens", "accepted drafts", "top-2 gaps at differences")
    groups: dict[tuple[str, float, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["type"], record["temperature"], record["tree"]), []).append(record)
    for (kind, temperature, tree), group in groups.items():
        gaps = [one["gap"] for one in group if one["gap"] is not None]
        n_tokens, n_accepted = (sum(one[name] for one in group) for name in ("tokens", "accepted"))
        equal = f"{len(group) - len(gaps)}/{len(group)}"
        listed = ", ".join(map(str, gaps)) or "-"
        table.add_row(kind, str(temperature), tree, equal, str(n_tokens), str(n_accepted), listed)
    Console().print(table)


if __name__ == "__main__":
    main()
