"""Tokens per pass against rows per pass, swept by the price of a row, beside prompt lookup on the same outputs.

Ours runs for real with `cost_curve`s on which every further row costs the same share of a plain pass. Prompt lookup
is replayed: its drafts depend on the text alone, so what it would have had accepted on a greedy output is counted
exactly, with llama-cpp-python's own LlamaPromptLookupDecoding and with the rule of llama-server's ngram-simple (the
latest earlier place of the last n tokens, m tokens from there). Counts only; no figure depends on the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.bench.prompts import choose, is_looping, read_prompts
from models import quantized

Drafter = Callable[[Sequence[int]], Sequence[int]]


@dataclass
class Count:
    tokens: int = 0
    passes: int = 0
    rows: int = 0

    def add(self, tokens: int, passes: int, rows: int) -> None:
        self.tokens, self.passes, self.rows = self.tokens + tokens, self.passes + passes, self.rows + rows

    def text(self) -> tuple[str, str]:
        return f"{self.rows / max(1, self.passes):.2f}", f"{self.tokens / max(1, self.passes):.3f}"


def prompt_lookup(max_ngram: int, n: int) -> Drafter:
    decoder = LlamaPromptLookupDecoding(max_ngram_size=max_ngram, num_pred_tokens=n)
    return lambda tokens: decoder(np.array(tokens, dtype=np.intc)).tolist()


def ngram_simple(n: int, m: int) -> Drafter:
    def draft(tokens: Sequence[int]) -> Sequence[int]:
        key = list(tokens[-n:])
        for start in range(len(tokens) - n - 1, -1, -1):
            if list(tokens[start : start + n]) == key:
                return tokens[start + n : start + n + m]
        return []

    return draft


def replay(draft: Drafter, prompt: Sequence[int], output: Sequence[int]) -> list[int]:
    """Rows of each pass that a chain drafter would have made on a finished greedy output."""
    text = [*prompt, *output]
    at = len(prompt) + 1  # the first token comes from the prompt's own pass
    rows = []
    while at < len(text):
        drafted = list(draft(text[:at]))[: len(text) - at - 1]
        accepted = 0
        while accepted < len(drafted) and drafted[accepted] == text[at + accepted]:
            accepted += 1
        rows.append(1 + len(drafted))
        at += accepted + 1
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--limit", type=int, default=39)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--slopes", type=float, nargs="+", default=[0.02, 0.1, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    stock = {
        "ngram-simple n=2 m=2": ngram_simple(2, 2),
        "ngram-simple n=2 m=3": ngram_simple(2, 3),
        "ngram-simple n=2 m=8": ngram_simple(2, 8),
        "ngram-simple n=3 m=8": ngram_simple(3, 8),
        "ngram-simple n=12 m=48": ngram_simple(12, 48),
        "LlamaPromptLookupDecoding 2": prompt_lookup(2, 2),
        "LlamaPromptLookupDecoding 10": prompt_lookup(2, 10),
    }
    ours = {f"row = {s:g} passes": Speculation(cost_curve={1: 1.0, 60: 1.0 + 59 * s}) for s in args.slopes}
    counts: dict[str, dict[str, Count]] = {}

    def add(name: str, groups: Iterable[str], values: tuple[int, int, int]) -> None:
        for group in groups:
            counts.setdefault(name, {}).setdefault(group, Count()).add(*values)

    with MaskProbeLlama(quantized(args.type), n_threads=args.n_threads) as llm:
        cases = choose(llm, read_prompts(args.prompts), args.limit, 800)
        for _, ids in track(cases, "prompts", console=Console(stderr=True), transient=True):
            options = {"max_tokens": args.max_tokens, "temperature": 0.0, "cache_prompt": False}
            plain = llm.generate(ids, speculate=False, **options)
            groups = ("pooled", "looping" if is_looping(plain.tokens) else "other")
            for name, speculation in ours.items():
                llm.reset(learned=True)
                stats = llm.generate(ids, speculate=speculation, **options).stats
                add(name, groups, (stats.predicted_n - 1, stats.passes, stats.rows))
            for name, draft in stock.items():
                rows = replay(draft, ids, plain.tokens)
                add(name, groups, (len(plain.tokens) - 1, len(rows), sum(rows)))
    table = Table("drafter")
    for group in ("pooled", "other", "looping"):
        table.add_column(f"{group}: rows/pass", justify="right")
        table.add_column("tokens/pass", justify="right")
    for name, by_group in counts.items():
        cells = [text for group in ("pooled", "other", "looping") for text in by_group.get(group, Count()).text()]
        table.add_row(name, *cells)
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps({n: {g: vars(c) for g, c in b.items()} for n, b in counts.items()}, indent=1))


if __name__ == "__main__":
    main()
