"""What drafts would gain on machines whose passes cost what they are said to cost: counts, no seconds.

Every answer is generated for real, planned with each machine's `cost_curve`, and its passes are added up by that curve.
Prompt lookup is replayed on the same answers beside it, as bench/frontier.py does. What is left out: time outside
llama_decode, and that a machine's costs are never known exactly.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from frontier import Drafter, ngram_simple, prompt_lookup, replay
from maskprobe import MaskProbeLlama, Speculation
from maskprobe.bench.prompts import choose, is_looping, read_prompts
from maskprobe.drafting.costs import interpolate
from models import quantized

MACHINES = {
    "F32, slow memory": {1: 1.0, 2: 1.26, 4: 1.5, 8: 1.9, 16: 2.7, 32: 4.3, 60: 7.3},
    "F32, fast memory": {1: 1.0, 2: 1.55, 4: 1.95, 8: 2.5, 16: 3.5, 32: 5.9, 60: 9.9},
    "Q4_0, 2 threads": {1: 1.0, 2: 1.75, 4: 2.4, 8: 3.6, 16: 5.1, 32: 9.4, 60: 18.0},
    "rows are free": {1: 1.0, 60: 1.0},
    "a row costs a pass": {1: 1.0, 60: 60.0},
}
LOOKUP: dict[str, Drafter] = {
    "ngram-simple n=2 m=2": ngram_simple(2, 2),
    "ngram-simple n=2 m=8": ngram_simple(2, 8),
    "prompt lookup, 2 tokens": prompt_lookup(2, 2),
}


class Sums:
    """Figures of many answers by one drafter at one machine's costs, in plain passes."""

    def __init__(self) -> None:
        self.tokens = self.passes = self.rows = 0
        self.cost = self.cost_other = 0.0
        self.tokens_other = 0
        self.worst = 0.0  # dearest answer by its plain cost

    def add(self, n_tokens: int, passes: Mapping[int, int], costs: Mapping[int, float], looping: bool) -> None:
        if n_tokens == 0:
            return
        curve = interpolate(costs, max(passes))
        cost = sum(n * float(curve[rows - 1]) for rows, n in passes.items()) / costs[1]
        self.tokens += n_tokens
        self.passes += sum(passes.values())
        self.rows += sum(rows * n for rows, n in passes.items())
        self.cost += cost
        if not looping:
            self.tokens_other, self.cost_other = self.tokens_other + n_tokens, self.cost_other + cost
        self.worst = max(self.worst, cost / n_tokens)

    def cells(self) -> Iterable[str]:
        """Tokens and rows per pass, speed over plain decoding (of outputs that do not loop, too), dearest answer."""
        yield f"{self.tokens / max(1, self.passes):.3f}"
        yield f"{self.rows / max(1, self.passes):.2f}"
        yield f"{self.tokens / max(1e-9, self.cost):.3f}"
        yield f"{self.tokens_other / max(1e-9, self.cost_other):.3f}"
        yield f"{self.worst:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--type", default="F32")
    parser.add_argument("--machines", nargs="+", default=list(MACHINES), choices=MACHINES)
    parser.add_argument("--limit", type=int, default=39)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    options = {"max_tokens": args.max_tokens, "temperature": 0.0, "cache_prompt": False}
    sums = {machine: {name: Sums() for name in ["ours", *LOOKUP]} for machine in args.machines}
    with MaskProbeLlama(quantized(args.type), n_threads=args.n_threads) as llm:
        cases = choose(llm, read_prompts(args.prompts), args.limit, 800)
        plain = [llm.generate(ids, speculate=False, **options).tokens for _, ids in cases]
        lookups = {
            name: [Counter(replay(draft, ids, tokens)) for (_, ids), tokens in zip(cases, plain, strict=True)]
            for name, draft in LOOKUP.items()
        }
        for machine, drafters in track(sums.items(), "machines", console=Console(stderr=True), transient=True):
            costs = MACHINES[machine]
            llm.reset(learned=True)
            for i, ((_, ids), tokens) in enumerate(zip(cases, plain, strict=True)):
                looping = is_looping(tokens)
                stats = llm.generate(ids, speculate=Speculation(cost_curve=costs), **options).stats
                drafters["ours"].add(stats.predicted_n - 1, dict(stats.passes_by_rows), costs, looping)
                for name, passes in lookups.items():
                    drafters[name].add(len(tokens) - 1, passes[i], costs, looping)
    table = Table("costs", "drafter", "tokens/pass", "rows/pass", "speed", "not looping", "dearest answer")
    for machine, drafters in sums.items():
        for name, total in drafters.items():
            table.add_row(machine, name, *total.cells())
    Console(width=120).print(table)
    if args.json:
        args.json.write_text(json.dumps({m: {n: vars(s) for n, s in d.items()} for m, d in sums.items()}, indent=1))


if __name__ == "__main__":
    main()
