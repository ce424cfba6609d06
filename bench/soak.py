"""Does one object, or one server, stay whole and small over many requests?

In process: answers of mixed length, drafts and sampling, streams that are left early, refused and failing requests, and
a conversation that outgrows the context. After each the KV cache is held to what the session says of it; every k-th
answer is held to plain decoding by a fresh object; resident memory may grow by 2% after the first fifth. With --server
the same through HTTP by 8 clients at once, with --conversation one chat for so many minutes, far past its context.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import llama_cpp
from rich.console import Console
from rich.table import Table

from maskprobe import ContextError, Generation, MaskProbeLlama, Speculation
from soak_server import soak_server
from soaked import N_CTX, WARM_UP, Soaked, question, resident

MOST_GROWTH = 0.02
CHAT_CTX = 512
MODES: list[Speculation | bool] = [
    False,
    Speculation(budget=4),
    Speculation(budget=16),
    Speculation(tree=(14,)),
    Speculation(masks=2, tree="dynamic", block=24),
    Speculation(sources=("ngrams",), budget=10),
]
KINDS = {"answer": 6, "chat": 4, "left": 3, "refused": 2, "failed": 1}


def soak(path: Path, n_requests: int, compare_every: int, seed: int = 0) -> Soaked:
    """Runs requests in one object. An AssertionError says what does not hold."""
    rng, done = random.Random(seed), Soaked()
    kinds, weights = list(KINDS), list(KINDS.values())
    start = time.monotonic()
    with MaskProbeLlama(path, n_ctx=N_CTX, n_threads=1, seed=1, speculation=Speculation(budget=4)) as llm:
        requests = _Requests(llm, rng, done)
        for i in range(n_requests):
            if i == int(WARM_UP * n_requests):
                done.rss_warm = resident()
            if i % compare_every == 0:
                requests.compare_with_fresh(path)
            else:
                kind = rng.choices(kinds, weights)[0]
                getattr(requests, kind)()
                done.kinds[kind] += 1
            check_kv(llm)
        done.rss_end = resident()
    done.seconds = time.monotonic() - start
    return done


class _Requests:
    """The kinds of requests, by name."""

    def __init__(self, llm: MaskProbeLlama, rng: random.Random, done: Soaked) -> None:
        self.llm, self.rng, self.done = llm, rng, done
        self.messages: list[dict[str, str]] = []

    def answer(self) -> None:
        ids = self._prompt()
        stop = self.rng.choice([None, None, ".", [" the", "\n"]])
        out = self.llm.generate(ids, **self._options(), stop=stop)
        self._check_cached(ids, out)

    def chat(self) -> None:
        """A turn of the conversation; its oldest turns go when it has outgrown the context."""
        self.messages.append({"role": "user", "content": question(self.rng)})
        while True:
            ids = self.llm.apply_chat_template(self.messages)
            try:
                out = self.llm.generate(ids, **(self._options() | {"max_tokens": 24}))
                break
            except ContextError:
                self.done.shortened += 1
                del self.messages[: max(2, len(self.messages) // 4 * 2)]
        self._check_cached(ids, out)
        self.messages.append({"role": "assistant", "content": out.text})

    def left(self) -> None:
        """A stream that is closed early."""
        stream = self.llm.stream(self._prompt(), **(self._options() | {"max_tokens": 40}))
        for _ in range(self.rng.randint(0, 6)):
            next(stream)
        stream.close()

    def refused(self) -> None:
        bad: dict[str, Any] = self.rng.choice([{"temperature": -1.0}, {"max_tokens": 0}, {"top_p": 2.0}, {"stop": [1]}])
        for prompt, options in (("Once", bad), ([7] * N_CTX, {}), ("", {})):
            try:
                self.llm.generate(prompt, **options)
            except ValueError:
                continue
            raise AssertionError(f"{options} was not refused")

    def failed(self) -> None:
        """An error before a pass ends the generation."""
        n_left = self.rng.randint(0, 4)

        def fail() -> None:
            nonlocal n_left
            n_left -= 1
            if n_left < 0:
                raise ZeroDivisionError

        with suppress(ZeroDivisionError):  # few tokens may come in fewer passes
            self.llm.generate(self._prompt(), **(self._options() | {"max_tokens": 64}), before_pass=fail)

    def compare_with_fresh(self, path: Path) -> None:
        ids, options = self._prompt(), self._options() | {"cache_prompt": False}
        ours = self.llm.generate(ids, **options)
        self._check_cached(ids, ours)
        with MaskProbeLlama(path, n_ctx=N_CTX, n_threads=1, speculation=Speculation(budget=4)) as fresh:
            theirs = fresh.generate(ids, **(options | {"speculate": False}))
        assert ours.tokens == theirs.tokens, f"{ours.tokens} after {self.done}, a fresh object says {theirs.tokens}"
        self.done.compared += 1

    def _prompt(self) -> list[int]:
        questions = " ".join(question(self.rng) for _ in range(self.rng.choice([1, 1, 1, 2, 8])))
        return self.llm.apply_chat_template([{"role": "user", "content": questions}])

    def _options(self) -> dict[str, Any]:
        return {
            "max_tokens": self.rng.randint(1, 12),
            "temperature": self.rng.choice([0.0, 0.8]),
            "seed": self.rng.randint(0, 1000),
            "speculate": self.rng.choice(MODES),
        }

    def _check_cached(self, prompt: list[int], out: Generation) -> None:
        """The session's tokens are those that were asked and answered."""
        self.done.tokens += len(out.tokens)
        text = [*prompt, *out.tokens]
        cached = self.llm.engine.session.cached()
        assert len(cached) >= len(prompt), "the prompt is not in the KV cache"
        n = min(len(cached), len(text))
        assert cached[:n] == text[:n], "the KV cache holds another text"


def check_kv(llm: MaskProbeLlama) -> None:
    """Sequences of the KV cache hold the session's tokens from position 0 on, or nothing."""
    ctx, n = llm.engine.model.ctx, llm.engine.session.n_cached()
    memory = llama_cpp.llama_get_memory(ctx)
    found = [
        (llama_cpp.llama_memory_seq_pos_min(memory, s), llama_cpp.llama_memory_seq_pos_max(memory, s))
        for s in range(llama_cpp.llama_n_seq_max(ctx))
    ]
    assert n <= llm.n_ctx()
    assert found[0] == ((0, n - 1) if n else (-1, -1)), f"sequence 0 is at {found[0]}, the session holds {n} tokens"
    assert set(found) <= {found[0], (-1, -1)}, f"sequences differ: {set(found)}"


# --- a conversation -----------------------------------------------------------------------------------


def soak_conversation(path: Path, minutes: float, compare_every: int, seed: int = 0) -> Soaked:
    """One conversation for so long. An AssertionError says what does not hold."""
    done, start = Soaked(), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        MaskProbeLlama(path, n_ctx=CHAT_CTX, n_threads=1, seed=1, speculation=Speculation(budget=4)) as llm,
    ):
        conversation = Conversation(llm, random.Random(seed), done, Path(folder) / "chat.state")
        while (passed := time.monotonic() - start) < 60.0 * minutes:
            if not done.rss_warm and passed >= 60.0 * minutes * WARM_UP:
                done.rss_warm = resident()
            conversation.turn(path if done.kinds["turn"] % compare_every == 0 else None)
            check_kv(llm)
        done.rss_end = resident()
    done.seconds = time.monotonic() - start
    return done


class Conversation:
    """Turns through create_chat_completion. What outgrows the context is shortened from its beginning."""

    def __init__(self, llm: MaskProbeLlama, rng: random.Random, done: Soaked, state: Path) -> None:
        self.llm, self.rng, self.done, self.state = llm, rng, done, state
        self.messages: list[dict[str, str]] = []

    def turn(self, path: Path | None) -> None:
        """A question and its answer, which is held to that of a fresh object if a model file is given."""
        self.messages.append({"role": "user", "content": question(self.rng)})
        options: dict[str, Any] = {
            "max_tokens": self.rng.choice([8, 16, 24, 32, 48, None]),
            "temperature": self.rng.choice([0.0, 0.8]),
            "seed": self.rng.randint(0, 1000),
        }
        if path is not None and self.done.compared % 2:
            options["cache_prompt"] = False
        while True:
            try:
                if path is not None and self.llm.engine.session.n_cached():
                    self.llm.save_state(self.state)
                text, tokens = self._answer(self.llm, options | {"speculate": self.rng.choice(MODES)})
                break
            except ContextError:
                self.done.shortened += 1
                del self.messages[: max(2, len(self.messages) // 4 * 2)]
        if path is not None:
            self._compare_with_fresh(path, options, text)
        self.messages.append({"role": "assistant", "content": text})
        self.done.tokens += tokens
        self.done.kinds["turn"] += 1

    def _compare_with_fresh(self, path: Path, options: dict[str, Any], text: str) -> None:
        """Holds the answer to plain decoding, from the same KV cache or from none."""
        with MaskProbeLlama(path, n_ctx=CHAT_CTX, n_threads=1, speculation=Speculation(budget=4)) as fresh:
            # A prompt that is decoded in other pieces may round otherwise, so both reuse the same or nothing.
            if options.get("cache_prompt", True) and self.state.exists():
                fresh.load_state(self.state)
            theirs, _ = self._answer(fresh, options | {"speculate": False})
        assert text == theirs, f"{text!r} after {self.done}, a fresh object says {theirs!r}"
        self.done.compared += 1

    def _answer(self, llm: MaskProbeLlama, options: dict[str, Any]) -> tuple[str, int]:
        parts = list(llm.create_chat_completion(self.messages, **options, stream=True))
        deltas = [part["choices"][0]["delta"] for part in parts]
        usage = parts[-1]["usage"]
        self.done.full += llm is self.llm and usage["total_tokens"] >= CHAT_CTX
        return "".join(delta.get("content") or "" for delta in deltas), usage["completion_tokens"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", default="Q4_0", help="quantization of the embedded model")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--compare-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", action="store_true", help="through a server, by 8 clients at once")
    parser.add_argument("--conversation", type=float, metavar="MINUTES", help="one chat for so long")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from models import quantized

    path = quantized(args.type)
    if args.server:
        done = soak_server(path, args.requests, args.seed)
    elif args.conversation:
        done = soak_conversation(path, args.conversation, args.compare_every, args.seed)
    else:
        done = soak(path, args.requests, args.compare_every, args.seed)
    table = Table("figure", "value")
    table.add_row("requests", ", ".join(f"{n} {kind}" for kind, n in sorted(done.kinds.items())))
    table.add_row("equal to the first answer" if args.server else "equal to a fresh object's", str(done.compared))
    if not args.server:
        table.add_row("tokens", str(done.tokens))
        table.add_row("conversation shortened", str(done.shortened))
        table.add_row("answers of it that filled the context", str(done.full))
    table.add_row("resident MiB, warm and at the end", f"{done.rss_warm / 2**20:.1f}, {done.rss_end / 2**20:.1f}")
    table.add_row("growth", f"{100 * done.growth:+.2f}%")
    table.add_row("seconds", f"{done.seconds:.0f}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(vars(done), indent=1) + "\n")
    return 1 if done.growth > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
