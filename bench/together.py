"""How much sooner are several users answered together than one after the other, plainly and with drafts?

Rounds of one answer to each of the users' questions: one after the other on an object of its own, then together on one
with as many lanes, then one after the other on that one too; plain and with drafts, in turn; and by llama-server with
as many slots, if it is named. Each round asks new questions. Ratios are of tokens per second, and medians of the
rounds. With --size the model has the shape of a Qwen3 and random weights: good for what passes cost, not for what
drafts bring.

python bench/together.py --users 4 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from maskprobe import MaskProbeLlama
from maskprobe.bench.opponents import LlamaServer
from maskprobe.bench.prompts import read_prompts
from models import quantized
from sizes import SHAPES, random_model

HERE = Path(__file__).parent
MODES = {"plain": False, "drafts": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: SmolLM2 as Q4_0")
    parser.add_argument("--size", choices=SHAPES, help="instead a model of this shape, Q4_0")
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.jsonl")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--llama-server", type=Path, help="the program, to be measured beside")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    options: dict[str, Any] = {"n_ctx": 4096, "n_threads": args.n_threads}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = random_model(folder, args.size, "Q4_0") if args.size else args.model or quantized("Q4_0")
        alone = stack.enter_context(MaskProbeLlama(path, **options))
        shared = stack.enter_context(MaskProbeLlama(path, n_parallel=args.users, **options))
        server = None
        if args.llama_server is not None:
            slots = ("--parallel", str(args.users), "--kv-unified")
            server = LlamaServer(args.llama_server, path, slots, n_ctx=4096, n_threads=alone.n_threads())
            stack.enter_context(closing(server))
        speeds = measure(Ways(alone, shared, server, args.max_tokens), prompts_of(alone, args.prompts), args)
    show(speeds, args.users)
    if args.json:
        args.json.write_text(json.dumps({"users": args.users, "tokens_per_second": speeds}, indent=2) + "\n")


def measure(ways: Ways, questions: Iterator[list[int]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Tokens per second by way, [rounds]."""
    speeds: dict[str, list[float]] = {}
    for i in range(args.rounds + 1):
        prompts = [next(questions) for _ in range(args.users)]
        for name, run in ways.all(prompts):
            ways.forget()  # the same questions were answered just before
            start = time.perf_counter()
            n_tokens = run()
            if i:  # the first round only warms up
                speeds.setdefault(name, []).append(n_tokens / (time.perf_counter() - start))
    return speeds


def prompts_of(llm: MaskProbeLlama, path: Path) -> Iterator[list[int]]:
    """Chats that begin with the prompts, over and over; numbered, so that no two are the same."""
    cases = read_prompts(path)
    i = 0
    while True:
        question = f"{cases[i % len(cases)].text} (Question {i})"
        if not llm.has_chat_template():  # a random model, which has no words: any token for each of these
            yield [zlib.crc32(word.encode()) % llm.n_vocab() for word in question.split()]
        else:
            yield llm.apply_chat_template([{"role": "user", "content": question}])
        i += 1


class Ways:
    """The ways in which questions are answered.

    Args:
        alone, shared: objects for one and for several generations at once.
        server: with as many slots, None = not measured.
    """

    def __init__(
        self, alone: MaskProbeLlama, shared: MaskProbeLlama, server: LlamaServer | None, max_tokens: int
    ) -> None:
        self._alone, self._shared, self._server, self._max_tokens = alone, shared, server, max_tokens

    def forget(self) -> None:
        for llm in (self._alone, self._shared):
            llm.reset(learned=True)

    def all(self, prompts: list[list[int]]) -> Iterator[tuple[str, Callable[[], int]]]:
        """By name, what answers all prompts and tells how many tokens that were."""
        for mode, speculate in MODES.items():
            yield f"one by one, {mode}", lambda speculate=speculate: self._one_by_one(self._alone, prompts, speculate)
            yield f"together, {mode}", lambda speculate=speculate: self._together(prompts, speculate)
            yield (
                f"one by one on as many lanes, {mode}",
                lambda speculate=speculate: self._one_by_one(self._shared, prompts, speculate),
            )
        if self._server is not None:
            yield "llama-server, as many slots", lambda: self._by_server(prompts)

    def _options(self, speculate: bool | None) -> Any:
        return {"max_tokens": self._max_tokens, "temperature": 0.0, "speculate": speculate, "cache_prompt": False}

    def _one_by_one(self, llm: MaskProbeLlama, prompts: list[list[int]], speculate: bool | None) -> int:
        return sum(len(llm.generate(prompt, **self._options(speculate)).tokens) for prompt in prompts)

    def _together(self, prompts: list[list[int]], speculate: bool | None) -> int:
        finished = list(self._shared.generate_many(prompts, **self._options(speculate)))
        failed = [done.error for done in finished if done.error is not None]
        assert not failed, failed
        return sum(len(done.generation.tokens) for done in finished if done.generation is not None)

    def _by_server(self, prompts: list[list[int]]) -> int:
        server = self._server
        assert server is not None, "one of the ways"
        with ThreadPoolExecutor(len(prompts)) as threads:
            answers = threads.map(lambda prompt: server.generate(prompt, self._max_tokens), prompts)
            return sum(len(answer.tokens) for answer in answers)


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
