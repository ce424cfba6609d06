"""How much the layers add to a stream: the same answers by llama_decode alone (what it took inside a plain stream of
chunks), as create_chat_completion(stream=True), and through HTTP, alternating.

python bench/server.py MODEL.gguf
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.server import Settings, bind, create_app, url_of
from maskprobe.server.run import Server

MESSAGES = [{"role": "user", "content": "Explain in a few sentences how a lighthouse helps ships find the harbour."}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument(
        "--budget", type=int, default=4, help="rows per pass; fixed, so that both ways do the same work"
    )
    args = parser.parse_args()
    options = {"messages": MESSAGES, "max_tokens": args.max_tokens, "temperature": 0.0, "cache_prompt": False}
    speculation = Speculation(budget=args.budget)
    with (
        MaskProbeLlama(args.model, n_ctx=1024, n_threads=args.n_threads, speculation=speculation) as llm,
        closing(bind("127.0.0.1", 0)) as bound,
    ):
        ready = threading.Event()
        server = Server(create_app(llm, Settings(names=("model",))), ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        ready.wait()
        url = url_of(bound)

        def in_process() -> str:
            parts = llm.create_chat_completion(stream=True, **options)
            return "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)

        def decoding() -> str:
            ids = llm.apply_chat_template(MESSAGES)
            text = ""
            for chunk in llm.stream(ids, max_tokens=args.max_tokens, temperature=0.0, cache_prompt=False):
                text += chunk.text
                if chunk.stats is not None:
                    inside.append((chunk.stats.prompt_ms + chunk.stats.decode_ms) / 1e3)
            return text

        def served() -> str:
            return read_stream(url, options)

        inside: list[float] = []  # llama_decode
        times: dict[str, list[float]] = {"decoding": [], "in process": [], "server": []}
        ways: dict[str, Callable[[], str]] = {"decoding": decoding, "in process": in_process, "server": served}
        try:
            texts = [way() for way in ways.values()]  # warms up
            for _ in range(args.rounds):
                for name, way in ways.items():
                    llm.reset(learned=True)
                    begin = time.perf_counter()
                    texts.append(way())
                    times[name].append(time.perf_counter() - begin)
        finally:
            server.should_exit = True
            thread.join()
    assert len(set(texts)) == 1, "both ways must give the same text"
    times["decoding"] = inside[1:]
    for name, seconds in times.items():
        print(f"{name:10} median {statistics.median(seconds):.3f} s, best {min(seconds):.3f} s")
    for below, above in itertools.pairwise(times):
        ratios = [b / a for a, b in zip(times[below], times[above], strict=True)]
        print(f"{above} over {below}: median of pairs {100 * (statistics.median(ratios) - 1):.1f} %")


def read_stream(url: str, options: dict[str, object]) -> str:
    with closing(HTTPConnection(urlsplit(url).netloc)) as connection:
        body = json.dumps(options | {"stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        text = ""
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        return text


if __name__ == "__main__":
    main()
