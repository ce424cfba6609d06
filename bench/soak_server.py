"""The long run of bench/soak.py through a server, by several clients at once."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import psutil

from soaked import N_CTX, WARM_UP, Soaked, question, resident

N_CLIENTS = 8


def soak_server(path: Path, n_requests: int, seed: int = 0) -> Soaked:
    """Runs requests of several clients against a server process."""
    done, start = Soaked(), time.monotonic()
    with _served(path) as (url, process):
        first = _Client(url, random.Random(seed)).fixed()
        n_warm = int(WARM_UP * n_requests)
        _run_clients(url, n_warm, seed, done, first)
        done.rss_warm = resident(process)
        _run_clients(url, n_requests - n_warm, seed + N_CLIENTS, done, first)
        done.rss_end = resident(process)
        assert _Client(url, random.Random(seed)).fixed() == first
    done.seconds = time.monotonic() - start
    return done


@contextmanager
def _served(path: Path) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "maskprobe.cli", "serve", "--model", str(path), "--port", "0"]
    command += ["--n-ctx", str(N_CTX), "--n-threads", "1", "--speculation", "budget=4", "--cache-ram", "16"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            addresses = (re.search(r"http://\S+", line) for line in process.stderr)
            address = next(filter(None, addresses), None)
            assert address, "the server did not start"
            yield address[0], psutil.Process(process.pid)
        finally:
            process.terminate()
        assert process.wait(60) == 0, process.stderr.read()


def _run_clients(url: str, n_requests: int, seed: int, done: Soaked, first: str) -> None:
    todo, lock, errors = iter(range(n_requests)), threading.Lock(), []

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        client = _Client(url, rng)
        kinds: dict[str, Callable[[], object]] = {
            "answer": client.answer,
            "stream": client.stream,
            "left": client.left,
            "refused": client.refused,
            "fixed": client.fixed,
        }
        while True:
            with lock:
                if next(todo, None) is None:
                    return
            kind = rng.choice(list(kinds))
            try:
                result = kinds[kind]()
                assert kind != "fixed" or result == first, f"{result!r} where the first answer was {first!r}"
            except BaseException as error:
                errors.append(error)
                return
            with lock:
                done.kinds[kind] += 1
                done.compared += kind == "fixed"

    threads = [threading.Thread(target=work, args=(number,)) for number in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class _Client:
    def __init__(self, url: str, rng: random.Random) -> None:
        self.rng = rng
        self.chats = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300).chat.completions

    def answer(self) -> object:
        return self.chats.create(**self._request())

    def stream(self) -> object:
        parts = [part.choices[0].finish_reason for part in self.chats.create(**self._request(), stream=True)]
        assert parts[-1] in ("stop", "length"), parts
        return parts

    def left(self) -> None:
        """Hangs up in the middle."""
        with self.chats.create(**(self._request() | {"max_tokens": 60}), stream=True) as parts:
            for _ in range(self.rng.randint(0, 5)):
                next(parts, None)

    def refused(self) -> None:
        bad = self.rng.choice([{"temperature": -1.0}, {"top_p": 2.0}, {"messages": []}, {"n": 2}])
        long = {"messages": [{"role": "user", "content": "one two " * N_CTX}]}
        for change in (bad, long):
            try:
                self.chats.create(**(self._request() | change))
            except openai.BadRequestError:
                continue
            raise AssertionError(f"{change} was not refused")

    def fixed(self) -> str:
        """The same request each time; its answer must be the same."""
        asked = [{"role": "user", "content": "Name the seven days of the week."}]
        extra = {"cache_prompt": False}
        answer = self.chats.create(model="", messages=asked, max_tokens=16, temperature=0, extra_body=extra)
        return answer.choices[0].message.content or ""

    def _request(self) -> dict[str, Any]:
        return {
            "model": "",
            "messages": [{"role": "user", "content": question(self.rng)}],
            "max_tokens": self.rng.randint(1, 24),
            "temperature": self.rng.choice([0.0, 0.8]),
        }
