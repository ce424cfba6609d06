"""Stock speculative modes to measure against, run as they are: llama-server's on a loopback port, llama.cpp's
programs llama-lookup and llama-lookahead, and llama-cpp-python's prompt lookup.

Knows their command lines and calls; the benchmark knows what to ask.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MaskProbeError
from ..results import Generation, Stats
from .results import STOCK_PLAIN

# Defaults and settings that suit chats: short matches, short drafts.
STOCK: dict[str, tuple[str, ...]] = {
    STOCK_PLAIN: (),
    "ngram-simple": ("--spec-type", "ngram-simple"),
    "ngram-simple-2-8": (
        *("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "2"),
        *("--spec-ngram-simple-size-m", "8"),
    ),
    "ngram-simple-2-2": (
        *("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "2"),
        *("--spec-ngram-simple-size-m", "2"),
    ),
    "ngram-map-k": ("--spec-type", "ngram-map-k"),
    "ngram-map-k-3-8": (
        *("--spec-type", "ngram-map-k", "--spec-ngram-map-k-size-n", "3"),
        *("--spec-ngram-map-k-size-m", "8"),
    ),
    "ngram-map-k4v": ("--spec-type", "ngram-map-k4v"),
    "ngram-map-k4v-3-8": (
        *("--spec-type", "ngram-map-k4v", "--spec-ngram-map-k4v-size-n", "3"),
        *("--spec-ngram-map-k4v-size-m", "8"),
    ),
    "ngram-mod": ("--spec-type", "ngram-mod"),
    "ngram-mod-8-8": (
        *("--spec-type", "ngram-mod", "--spec-ngram-mod-n-match", "8"),
        *("--spec-ngram-mod-n-min", "2", "--spec-ngram-mod-n-max", "8"),
    ),
    "ngram-cache": ("--spec-type", "ngram-cache"),
}
# llama-cpp-python's prompt lookup, by how many tokens it drafts.
LOOKUP = {"llama-cpp-python-lookup-2": 2, "llama-cpp-python-lookup-10": 10}
# Programs of llama.cpp's that answer one prompt; they say how many tokens they took and how fast, not which. Of the
# token that the prompt itself gives, before any pass, the first counts one, the second none.
PROGRAMS = {"llama-lookup": 1, "llama-lookahead": 0}
DRAFT_MODEL = "draft-model"  # llama-server with a smaller model beside
_START_SECONDS = 120.0
_ANSWER_SECONDS = 600.0


class Usage(NamedTuple):
    """What a process has used; 0 = not known."""

    cpu_seconds: float  # so far, of all threads
    rss_mb: float  # now


def usage_of(pid: int) -> Usage:
    """What a process has used; nothing is known where psutil is not installed."""
    try:
        import psutil

        process = psutil.Process(pid)
        times = process.cpu_times()
        return Usage(times.user + times.system, process.memory_info().rss / 2**20)
    except Exception:  # not installed, or the process is gone
        return Usage(0.0, 0.0)


class OpponentError(MaskProbeError):
    """A stock mode could not be run; the message has the program's last words."""


def find_program(name: str, server: Path | None) -> Path:
    """The program to run: llama-server where it was said to be, others beside it, or on PATH.

    Raises:
        OpponentError: it is not there.
    """
    given = server if server is None or name == "llama-server" else server.with_name(name)
    found = shutil.which(given or name)
    if found is None:
        where = f"at {given}" if given else "on PATH"
        raise OpponentError(f"no {name} {where}; build one from the same llama.cpp, or name the server: --llama-server")
    return Path(found)


class LlamaServer:
    """A running llama-server with one slot, for greedy completions.

    Raises:
        OpponentError: the program does not start.
    """

    def __init__(self, program: Path, model: Path, arguments: Sequence[str], *, n_ctx: int, n_threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        threads = ("--threads", str(n_threads), "--threads-batch", str(n_threads))
        batches = ("--batch-size", "512", "--ubatch-size", "512", "--flash-attn", "on", "--parallel", "1")
        command = [str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
        command += [*threads, *batches, "--ctx-size", str(n_ctx), "--cache-ram", "0", "--fit", "off", *arguments]
        try:
            self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        except OSError as error:
            self._log.close()
            raise OpponentError(f"{program} cannot be run: {error}") from error
        try:
            self._wait_until_healthy()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stops the program."""
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def usage(self) -> Usage:
        """What the server's process has used."""
        return usage_of(self._process.pid)

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        """A greedy completion with the server's own figures; its slot starts empty.

        Raises:
            OpponentError: the server died or refused.
        """
        body = {"prompt": list(prompt), "n_predict": max_tokens, "temperature": 0.0, "cache_prompt": False}
        answer = self._post("/completion", body | {"return_tokens": True})
        timings = answer["timings"]
        draft_n, accepted = timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)
        predicted_n = int(timings["predicted_n"])
        passes = max(0, predicted_n - 1 - accepted)
        stats = Stats(
            prompt_n=timings["prompt_n"],
            prompt_ms=timings["prompt_ms"],
            predicted_n=predicted_n,
            predicted_ms=timings["predicted_ms"],
            passes=passes,
            rows=passes + draft_n,
            draft_n=draft_n,
            draft_n_accepted=accepted,
        )
        tokens: list[int] = answer["tokens"]
        if answer.get("stop_type") == "eos" and len(tokens) == predicted_n:
            tokens.pop()  # the end's own, which is no token of an answer here
        return Generation(answer["content"], tokens, "length" if answer.get("stop_type") == "limit" else "stop", stats)

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise OpponentError(f"llama-server ended at once: {self._last_words()}")
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
                urllib.request.urlopen(self._url + "/health", timeout=5.0),
            ):
                return
            time.sleep(0.1)
        raise OpponentError(f"llama-server was not ready after {_START_SECONDS:.0f} s: {self._last_words()}")

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (OSError, ValueError) as error:
            raise OpponentError(f"llama-server failed ({error}): {self._last_words()}") from error

    def _last_words(self) -> str:
        self._log.seek(0)
        return _last_lines(self._log.read().decode("utf-8", "replace"))


class PromptLookup:
    """llama-cpp-python's Llama with LlamaPromptLookupDecoding, for greedy completions.

    Raises:
        OpponentError: it cannot load the model.
    """

    def __init__(self, model: Path, n_draft: int, *, n_ctx: int, n_threads: int) -> None:
        import llama_cpp
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        counts = self._counts = [0, 0]  # passes, drafted tokens

        class Counting(LlamaPromptLookupDecoding):  # type: ignore[misc]
            def __call__(self, input_ids: Any, /, **options: Any) -> Any:
                drafted = super().__call__(input_ids, **options)
                counts[0] += 1
                counts[1] += len(drafted)
                return drafted

        try:
            self._llama = llama_cpp.Llama(
                str(model),
                n_ctx=n_ctx,
                n_threads=n_threads,
                n_threads_batch=n_threads,
                flash_attn=True,
                logits_all=True,
                verbose=False,
                draft_model=Counting(max_ngram_size=2, num_pred_tokens=n_draft),
            )
        except Exception as error:
            raise OpponentError(f"llama_cpp.Llama cannot load {model.name}: {error}") from error

    def usage(self) -> Usage:
        """What this process has used, in which it runs."""
        return usage_of(os.getpid())

    def close(self) -> None:
        self._llama.close()

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        """A greedy completion; the time is counted from the first token on.

        Raises:
            OpponentError: it failed.
        """
        self._llama.reset()
        self._counts[:] = [0, 0]
        tokens: list[int] = []
        reason, clock, start = "length", time.perf_counter(), 0.0
        end = self._llama.token_eos()
        try:
            for token in self._llama.generate(list(prompt), temp=0.0):
                start = start or time.perf_counter()
                if token == end:
                    reason = "stop"
                    break
                tokens.append(token)
                if len(tokens) == max_tokens:
                    break
        except Exception as error:
            raise OpponentError(f"llama_cpp.Llama failed: {error}") from error
        now = time.perf_counter()
        predicted_n = len(tokens) + (reason == "stop")
        # It drafts after every pass, the prompt's included; the last drafts may not have been verified.
        passes = min(max(1, self._counts[0] - 1), max(1, predicted_n - 1))
        stats = Stats(
            prompt_n=len(prompt),
            prompt_ms=1e3 * (start - clock),
            predicted_n=predicted_n,
            predicted_ms=1e3 * (now - start),
            passes=passes,
            rows=passes + self._counts[1],
            draft_n=self._counts[1],
            draft_n_accepted=max(0, predicted_n - 1 - passes),
        )
        return Generation("", tokens, reason, stats)  # type: ignore[arg-type]


class Program:
    """llama-lookup or llama-lookahead: one run per prompt, with the figures that it prints at its end.

    Args:
        render: the text of a prompt's tokens, special ones included.
        n_first: how many of the tokens that it counts come before the first pass.

    Raises:
        OpponentError: it is not there.
    """

    def __init__(
        self,
        program: Path,
        model: Path,
        render: Callable[[Sequence[int]], str],
        n_first: int,
        *,
        n_ctx: int,
        n_threads: int,
    ) -> None:
        self._render, self._n_first = render, n_first
        self._command = [str(program), "--model", str(model), "--ctx-size", str(n_ctx), "--threads", str(n_threads)]
        self._command += ["--flash-attn", "on", "--temp", "0", "--fit", "off"]
        self._cpu = 0.0

    def usage(self) -> Usage:
        """What the runs so far have used, loading included."""
        return Usage(self._cpu, 0.0)

    def close(self) -> None:
        pass

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        """A greedy completion of which only the figures are known.

        Raises:
            OpponentError: it failed, or said something else than expected.
        """
        command = [*self._command, "--predict", str(max_tokens), "--prompt", self._render(prompt)]
        before = os.times()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, errors="replace")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OpponentError(f"{command[0]} failed: {error}") from error
        after = os.times()
        self._cpu += after.children_user + after.children_system - before.children_user - before.children_system
        said = done.stdout + done.stderr
        decoded = re.search(r"decoded\s+(\d+) tokens in\s+([\d.]+) seconds", said)
        encoded = re.search(r"encoded\s+(\d+) tokens in\s+([\d.]+) seconds", said)
        if done.returncode or decoded is None or encoded is None:
            raise OpponentError(f"{command[0]} ended with {done.returncode}: {_last_lines(said)}")
        accepted, drafted = _figure(said, "n_accept") or 0, _figure(said, "n_drafted")
        n_of_passes = int(decoded[1]) - self._n_first
        passes = max(0, n_of_passes - accepted)
        stats = Stats(
            prompt_n=int(encoded[1]),
            prompt_ms=1e3 * float(encoded[2]),
            predicted_n=1 + n_of_passes,
            predicted_ms=1e3 * float(decoded[2]),
            passes=passes,
            rows=0 if drafted is None else passes + drafted,
            draft_n=drafted or 0,
            draft_n_accepted=accepted,
        )
        return Generation("", [], "length", stats)


def _figure(said: str, name: str) -> int | None:
    found = re.search(rf"{name}\s*=\s*(\d+)", said)
    return int(found[1]) if found else None


def _last_lines(said: str) -> str:
    return " / ".join(said.strip().splitlines()[-3:]) or "it said nothing"


def opponents(
    names: Sequence[str],
    server: Path | None,
    model: Path,
    render: Callable[[Sequence[int]], str],
    *,
    draft_model: Path | None,
    n_ctx: int,
    n_threads: int,
) -> dict[str, Callable[[], LlamaServer | PromptLookup | Program]]:
    """How to start the named stock modes, ``all`` for all that need nothing else.

    Raises:
        ValueError: a name is unknown.
    """

    def serve(arguments: tuple[str, ...]) -> LlamaServer:
        program = find_program("llama-server", server)
        return LlamaServer(program, model, arguments, n_ctx=n_ctx, n_threads=n_threads)

    def run(name: str) -> Program:
        program = find_program(name, server)
        return Program(program, model, render, PROGRAMS[name], n_ctx=n_ctx, n_threads=n_threads)

    def lookup(n_draft: int) -> PromptLookup:
        return PromptLookup(model, n_draft, n_ctx=n_ctx, n_threads=n_threads)

    known: dict[str, Callable[[], LlamaServer | PromptLookup | Program]] = {}
    known |= {name: partial(serve, arguments) for name, arguments in STOCK.items()}
    known |= {name: partial(run, name) for name in PROGRAMS}
    if draft_model is not None:
        known[DRAFT_MODEL] = partial(serve, ("--spec-type", "draft-simple", "--model-draft", str(draft_model)))
    known |= {name: partial(lookup, n_draft) for name, n_draft in LOOKUP.items()}
    wanted = [one for name in names for one in (known if name == "all" else [name])]
    for name in wanted:
        if name not in known:
            raise ValueError(f"unknown stock mode {name!r}; choose from {', '.join(known)} or all")
    return {name: known[name] for name in wanted}
