"""Counts that do not depend on the machine's speed, held against a committed baseline: a guard against silent losses.

Tokens per pass, rows, passes, llama_decode calls and scans of the KV cache per setting, on eight short prompts, greedy,
each answer by a fresh drafter with given costs. Exits with 1 if tokens per pass fall, or rows or scans per token
rise, by more than 2%; --update writes a new baseline. llama.cpp built for AVX-512 adds floats in another order than
built for AVX2, so that some answers part at a near tie: each has a baseline of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import llama_cpp
from rich.console import Console
from rich.progress import track
from rich.table import Table

from maskprobe import MaskProbeLlama, Speculation, embedded_model

HERE = Path(__file__).parent
TOLERANCE = 0.02
MAX_TOKENS = 48
SETTINGS = {
    "priced": Speculation(cost_curve={1: 1.0, 2: 1.4, 8: 2.4, 60: 10.0}, probe="table-mean"),
    "budget-10": Speculation(budget=10, probe="table-mean"),
    "paper-10": Speculation.paper(10),
    "tree-14": Speculation(tree=(14,)),
    "lookup-10": Speculation(sources=("ngrams",), budget=10),
    "recycling-10": Speculation(sources=("adjacency",), budget=10),
}

Counts = dict[str, float]


def count(llm: MaskProbeLlama, prompts: list[list[int]], speculation: Speculation) -> Counts:
    """Sums over all prompts."""
    total = {"tokens": 0, "passes": 0, "rows": 0, "kv_scans": 0}
    for ids in prompts:
        llm.reset(learned=True)
        out = llm.generate(ids, max_tokens=MAX_TOKENS, temperature=0.0, speculate=speculation, cache_prompt=False)
        total["tokens"] += out.stats.predicted_n - 1
        total["passes"] += out.stats.passes
        total["rows"] += out.stats.rows
        total["kv_scans"] += out.stats.kv_scans
    tokens = total["tokens"]
    return {
        "tokens_per_pass": round(tokens / total["passes"], 4),
        "rows_per_token": round(total["rows"] / tokens, 4),
        "kv_scans_per_token": round(total["kv_scans"] / tokens, 4),
        "decode_calls": total["passes"],
    }


def build() -> str:
    """What llama.cpp was built for, as far as it decides how floats are added."""
    system = llama_cpp.llama_print_system_info().decode()
    return next((name for name in ("avx512", "avx2") if f"{name.upper()} = 1" in system), platform.machine())


def losses(counts: dict[str, Counts], baseline: dict[str, Counts]) -> list[str]:
    """What is worse than the baseline allows."""
    found = []
    for setting, before in baseline.items():
        for name, value in before.items():
            now = counts.get(setting, {}).get(name)
            if now is None:
                found.append(f"{setting} is not counted any more")
                break
            worse = (value - now if name == "tokens_per_pass" else now - value) / max(value, 1e-9)
            if worse > TOLERANCE and abs(now - value) > 0.01:
                found.append(f"{setting}: {name} is {now}, the baseline is {value}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", type=Path, default=HERE / "counts.json")
    parser.add_argument("--update", action="store_true", help="write the counts as the new baseline")
    args = parser.parse_args()
    console = Console(width=120)
    questions = [json.loads(line)["turns"][0] for line in (HERE / "prompts.jsonl").read_text().splitlines()]
    with MaskProbeLlama(embedded_model(), n_ctx=1024, n_threads=1, speculation=SETTINGS["priced"]) as llm:
        prompts = [llm.apply_chat_template([{"role": "user", "content": question}]) for question in questions]
        counts = {
            name: count(llm, prompts, speculation)
            for name, speculation in track(SETTINGS.items(), "settings", console=Console(stderr=True), transient=True)
        }
    table = Table("setting", *next(iter(counts.values())))
    for name, values in counts.items():
        table.add_row(name, *(f"{value:g}" for value in values.values()))
    console.print(table)
    baselines = json.loads(args.baseline.read_text())
    if args.update:
        args.baseline.write_text(json.dumps({**baselines, build(): counts}, indent=1) + "\n")
        return 0
    if build() not in baselines:
        console.print(f"no baseline for llama.cpp built for {build()}: --update writes one")
        return 0
    found = losses(counts, baselines[build()])
    for line in found:
        console.print(line, style="red")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
