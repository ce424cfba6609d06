"""A served model, a plain HTTP client beside openai's, and a gate that holds the model between passes."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.core.pool import Pool
from maskprobe.core.session import Session
from maskprobe.server import Settings, bind, create_app, url_of
from maskprobe.server.run import Server

NAME = "smollm2"
HELLO = [{"role": "user", "content": "Name the seven days of the week."}]
# Names of figures, as the server's metrics have them.
PROCESSING, DEFERRED = "llamacpp:requests_processing", "llamacpp:requests_deferred"
DROPPED = 'maskprobe:requests_total{outcome="dropped"}'
ENDLESS = {"0": -100, "2": -100}  # a bias against the model's tokens that end a text
DEADLINE = 60.0  # seconds; for waits that end early unless something is broken


def load_for_server(path: Any, **options: Any) -> MaskProbeLlama:
    """A model whose drafts do not depend on measured costs, and whose draws can be repeated."""
    return MaskProbeLlama(path, n_ctx=1024, n_threads=1, seed=1, speculation=Speculation(budget=4), **options)


@contextmanager
def serving(llm: MaskProbeLlama, **settings: Any) -> Iterator[str]:
    """Serves a model on a free port; gives the URL."""
    app = create_app(llm, Settings(names=(NAME,), **settings))
    ready = threading.Event()
    server = Server(app, ready.set)
    with closing(bind("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert ready.wait(DEADLINE)
            yield url_of(bound)
        finally:
            server.should_exit = True
            thread.join(DEADLINE)
            assert not thread.is_alive(), "the server did not stop"


def openai_client(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=DEADLINE)


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        assert error["message"]
        return error


def connect(url: str, source: str = "127.0.0.1") -> http.client.HTTPConnection:
    """A connection from a local address; all of 127.0.0.0/8 are this machine's."""
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE, source_address=(source, 0))


def send(connection: http.client.HTTPConnection, path: str, body: Any) -> None:
    """Sends a JSON request and does not wait for its answer."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})


def fetch(
    url: str, path: str, body: Any = None, method: str | None = None, source: str = "127.0.0.1", **headers: str
) -> Reply:
    """One request. A body that is no bytes is sent as JSON; underscores in names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        named.setdefault("Content-Type", "application/json")
        body = body if isinstance(body, bytes) or hasattr(body, "__next__") else json.dumps(body).encode()
    with closing(connect(url, source)) as connection:
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())


def metric(url: str, name: str, **headers: str) -> float:
    text = fetch(url, "/metrics", **headers).body.decode()
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def wait_for_metric(url: str, name: str, value: float, **headers: str) -> None:
    """Asks until a metric has a value."""
    end = time.monotonic() + DEADLINE
    while (found := metric(url, name, **headers)) != value:
        assert time.monotonic() < end, f"{name} is {found}, not {value}"


class Gate:
    """Holds the model before its passes (step) or pieces of prompts (prefill) until it is opened, and counts them.

    Passes of several generations are a Pool's.
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, method: str = "step", passing: type[Session] | type[Pool] = Session
    ) -> None:
        self.passes = 0
        self.reached = threading.Event()
        self._opened = threading.Event()
        inner = getattr(passing, method)

        def gated(*arguments: Any) -> Any:
            self.reached.set()
            assert self._opened.wait(DEADLINE)
            self.passes += 1
            return inner(*arguments)

        patch.setattr(passing, method, gated)

    def open(self) -> None:
        self._opened.set()


def note_prompts(patch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the prompts that the model begins with from now on, in order."""
    lengths: list[int] = []
    begin = Session.begin

    def noted(session: Session, prompt: list[int], *arguments: Any, **options: Any) -> Any:
        lengths.append(len(prompt))
        return begin(session, prompt, *arguments, **options)

    patch.setattr(Session, "begin", noted)
    return lengths
