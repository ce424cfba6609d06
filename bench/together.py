"""How much sooner are several users answered together than one after the other, plainly and with drafts?

Rounds of one answer to each of the users' questions: one after the other on an object of its own, then together on one
with as many lanes; plain and with drafts, in turn. Each round asks new questions. Ratios are of tokens per second, and
medians of the rounds.

python bench/together.py --users 4 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama
from maskprobe.bench.prompts import read_prompts
from models import quantized

HERE = Path(__file__).parent
MODES = {"plain": False, "drafts": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: SmolLM2 as Q4_0")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.jsonl")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    path = args.model or quantized("Q4_0")
    options: dict[str, Any] = {"n_ctx": 4096, "n_threads": args.n_threads}
    with MaskProbeLlama(path, **options) as alone, MaskProbeLlama(path, n_parallel=args.users, **options) as shared:
        questions = prompts_of(alone, args.prompts)
        speeds: dict[str, list[float]] = {}
        for i in range(args.rounds + 1):
            prompts = [next(questions) for _ in range(args.users)]
            for name, run in ways(alone, shared, prompts, args.max_tokens):
                for llm in (alone, shared):
                    llm.reset(learned=True)  # the same questions were answered just before
                start = time.perf_counter()
                n_tokens = run()
                if i:  # the first round only warms up
                    speeds.setdefault(name, []).append(n_tokens / (time.perf_counter() - start))
    show(speeds, args.users)
    if args.json:
        args.json.write_text(json.dumps({"users": args.users, "tokens_per_second": speeds}, indent=2) + "\n")


def prompts_of(llm: MaskProbeLlama, path: Path) -> Iterator[list[int]]:
    """Chats that begin with the prompts, over and over; numbered, so that no two are the same."""
    cases = read_prompts(path)
    i = 0
    while True:
        question = f"{cases[i % len(cases)].text} (Question {i})"
        yield llm.apply_chat_template([{"role": "user", "content": question}])
        i += 1


def ways(
    alone: MaskProbeLlama, shared: MaskProbeLlama, prompts: list[list[int]], max_tokens: int
) -> Iterator[tuple[str, Callable[[], int]]]:
    """By name, what answers all prompts and tells how many tokens that were."""
    for mode, speculate in MODES.items():
        options: Any = {"max_tokens": max_tokens, "temperature": 0.0, "speculate": speculate, "cache_prompt": False}

        def one_by_one(options: Any = options) -> int:
            return sum(len(alone.generate(prompt, **options).tokens) for prompt in prompts)

        def together(options: Any = options) -> int:
            finished = list(shared.generate_many(prompts, **options))
            failed = [done.error for done in finished if done.error is not None]
            assert not failed, failed
            return sum(len(done.generation.tokens) for done in finished if done.generation is not None)

        yield f"one by one, {mode}", one_by_one
        yield f"together, {mode}", together


def show(speeds: dict[str, list[float]], users: int) -> None:
    """Speeds, and each as a multiple of plain answers one by one, round by round."""
    table = Table(title=f"{users} users")
    for column in ("", "tokens/s", "x one by one, plain", "x one by one, drafts"):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in speeds.items():
        ratios = [
            median(ours / theirs for ours, theirs in zip(found, speeds[f"one by one, {mode}"], strict=True))
            for mode in MODES
        ]
        table.add_row(name, f"{median(found):.1f}", *(f"{ratio:.2f}" for ratio in ratios))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
