"""Does each of many answers on one object come out as it does alone?

Requests of all kinds in n_parallel lanes of one object with too few cells: greedy and seeded, plain, with trees and
masks; chats that go on, prompts that begin alike, streams that are left early, callers that raise, and passes that
llama.cpp aborts. Each answer is held, token by token, to the same request on an object of its own that decodes one row
at a time. Prints what was shared: tokens, passes, cells that were packed, texts that were parked.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import llama_cpp
from rich.console import Console

from maskprobe import DecodeError, MaskProbeLlama, Speculation, embedded_model

SYSTEM = "You are a careful assistant. Answer in one short sentence, and name the source of what you say. " * 2
TOPICS = ("tides", "bread", "bees", "glass", "chess", "rain", "violins", "copper", "maps", "salt")
SPECULATIONS: list[Speculation | bool] = [
    False,
    Speculation(budget=10, probe="table-mean"),
    Speculation(cost_curve={1: 1.0, 2: 1.2, 8: 1.6, 60: 6.0}),
    Speculation(tree=(6,)),
    Speculation.paper(10),
    Speculation(sources=("ngrams", "adjacency", "history"), budget=8),
]
KINDS = {"answer": 6, "left": 2, "raised": 1}
N_CHATS = 12


class GivenUp(Exception):  # noqa: N818 - no error: a caller who has enough
    """What a caller raises."""


class Aborts:
    """Has llama.cpp abort a pass now and then."""

    def __init__(self, llm: MaskProbeLlama, rng: random.Random, every: int) -> None:
        self.n = 0
        left = rng.randrange(every) if every else 0

        def abort(_: ctypes.c_void_p) -> bool:
            nonlocal left
            left -= 1
            if every and left < 0:
                left = rng.randrange(2 * every)
                self.n += 1
                return True
            return False

        self._callback = llama_cpp.ggml_abort_callback(abort)
        llama_cpp.llama_set_abort_callback(llm.engine.model.ctx, self._callback, None)


@dataclass
class Work:
    """What the threads take requests from, and what they found."""

    rng: random.Random
    lock: threading.Lock = field(default_factory=threading.Lock)
    chats: dict[int, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    done: list[tuple[dict[str, Any], str, list[int]]] = field(default_factory=list)  # request, outcome and tokens

    def take(self, i: int) -> tuple[str, int, dict[str, Any]]:
        """A kind, a chat and a request."""
        with self.lock:
            rng = self.rng
            (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
            chat = rng.randrange(N_CHATS)
            text = self.chats.get(chat) or f"{SYSTEM}\nUser: What do you know of {rng.choice(TOPICS)}?\nAssistant:"
            if len(text) > 1200:
                text = text[: len(SYSTEM)] + f"\nUser: And what of {rng.choice(TOPICS)}?\nAssistant:"
            self.chats[chat] = text
            speculate, temperature = rng.choice(SPECULATIONS), rng.choice((0.0, 0.9))
            options = {"max_tokens": rng.randrange(4, 28), "temperature": temperature, "seed": i}
            return kind, chat, {"prompt": text, "speculate": speculate, **options}


def run(llm: MaskProbeLlama, work: Work, i: int) -> None:
    """One request."""
    kind, chat, request = work.take(i)
    n_most = 3 if kind == "left" else request["max_tokens"]
    left = 4

    def give_up() -> None:
        nonlocal left
        left -= 1
        if kind == "raised" and left == 0:
            raise GivenUp

    tokens: list[int] = []
    outcome = kind
    text = ""
    try:
        with closing(llm.stream(before_pass=give_up, **request)) as chunks:
            for chunk in islice(chunks, n_most + 1 if kind != "left" else n_most):
                tokens += chunk.tokens
                text += chunk.text
    except GivenUp:
        outcome = "raised"
    except DecodeError:
        outcome = "aborted alone"
    with work.lock:
        work.outcomes[outcome] += 1
        work.done.append((request, outcome, tokens))
        if outcome == "answer":
            work.chats[chat] = request["prompt"] + text + f"\nUser: Go on, {i}.\nAssistant:"


def differences(alone: MaskProbeLlama, work: Work) -> list[str]:
    """Which answers are not those of the same requests alone; of what was ended early its beginning."""
    found = []
    for request, outcome, tokens in work.done:
        expected = alone.generate(**{**request, "speculate": False}, cache_prompt=False).tokens
        if tokens != (expected if outcome == "answer" else expected[: len(tokens)]):
            found.append(f"seed {request['seed']} ({outcome}): {tokens} is not {expected}; {request}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=embedded_model())
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--n-ctx", type=int, default=1536, help="cells for all lanes together")
    parser.add_argument("--abort-every", type=int, default=200_000, help="nodes of llama.cpp's graphs, 0 = never")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with (
        MaskProbeLlama(
            args.model, n_ctx=args.n_ctx, n_threads=1, n_parallel=args.lanes, queue=True, cache_ram=64
        ) as llm,
        ThreadPoolExecutor(args.lanes + 2) as threads,
    ):
        work, aborts = Work(rng), Aborts(llm, random.Random(args.seed + 1), args.abort_every)
        for future in [threads.submit(run, llm, work, i) for i in range(args.requests)]:
            future.result()
        figures, n_passes = llm.engine.seats.figures(), llm.engine.seats.n_passes
    with MaskProbeLlama(args.model, n_ctx=args.n_ctx, n_threads=1, n_batch=32, n_ubatch=32) as alone:
        wrong = differences(alone, work)
    n_tokens = sum(len(tokens) for _, _, tokens in work.done)
    console = Console(width=120)
    console.print(
        f"{args.requests} requests in {args.lanes} lanes: {dict(work.outcomes)}; {n_tokens} tokens, {n_passes} "
        f"passes, prompts among them; {aborts.n} passes aborted; {figures}; wrong: {len(wrong)}"
    )
    for line in wrong[:10]:
        console.print(line, style="red", soft_wrap=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
