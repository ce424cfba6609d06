"""``maskprobe serve`` as a process: start, stop, and what can be wrong beforehand."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from server_fixtures import DEADLINE, HELLO, connect, fetch, send, serving

from maskprobe import MaskProbeLlama
from maskprobe.cli.serve import _at_once
from maskprobe.core.lanes import Lanes

FAST = ("--port", "0", "--n-threads", "1", "--n-ctx", "512", "--speculation", "budget=4")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "maskprobe.cli", "serve", *arguments]


@contextmanager
def serve(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server process, its URL and the line that it printed when it was ready."""
    environ = os.environ | {"NO_COLOR": "1"} | environment
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if url := re.search(r"http://\S+", line):
                    break
            assert url, "no line with the URL"
            yield process, url[0], line
        finally:
            if process.poll() is None:
                process.kill()


def fails(*arguments: str, **options: Any) -> str:
    """The one line that a server leaves that cannot start."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=DEADLINE, **options)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_server_and_the_answer_that_is_coming(model_path: Callable[[str], Path], sign: int) -> None:
    with serve("--model", str(model_path("Q4_0")), *FAST) as (process, url, line):
        assert line.startswith("maskprobe serves smollm2-Q4_0 at http://127.0.0.1:")
        with closing(connect(url)) as connection:
            endless = {"messages": HELLO, "stream": True, "logit_bias": {"2": -100, "0": -100}}
            send(connection, "/v1/chat/completions", endless)
            response = connection.getresponse()
            while not response.readline().startswith(b"data: "):
                pass  # a comment: a busy machine took more than a second
            process.send_signal(sign)
            events = response.read().decode().strip().split("\n\n")
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
        out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out, err) == (0, "", "")


def test_several_at_once_unless_told_otherwise(model_path: Callable[[str], Path]) -> None:
    for options, n, words in (((), 4, "(4 requests at once;"), (("--parallel", "1"), 1, "(1 request at a time;")):
        with serve("--model", str(model_path("Q4_0")), *FAST, *options) as (_, url, line):
            assert words in line
            assert len(fetch(url, "/slots").json()) == n


def test_why_not_more_at_once() -> None:
    def said(lanes: Lanes, n_lanes: int, why_in_turn: str | None) -> str:
        llm: Any = SimpleNamespace(n_lanes=n_lanes, drafting=SimpleNamespace(why_in_turn=why_in_turn))
        return _at_once(llm, lanes)

    assert said(Lanes(2, "3 take too much"), 2, None) == "2 requests at once: 3 take too much"
    assert said(Lanes(4), 1, "its state does not branch") == "1 request at a time: its state does not branch"


def test_models_that_take_turns_have_one_slot(tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("mamba"), n_ctx=256, n_threads=1, n_parallel=3) as llm, serving(llm) as url:
        assert len(fetch(url, "/slots").json()) == llm.n_lanes == len(llm.engine.seats.all)
        assert (llm.n_lanes == 1) == (llm.drafting.why_in_turn is not None)


def test_options(model_path: Callable[[str], Path]) -> None:
    names = ("--alias", "mine", "--allowed-host", "my.host", "--cors-origin", "https://a.example", "--max-body", "500")
    with serve("--model", str(model_path("Q4_0")), *FAST, *names, MASKPROBE_API_KEY="other secret") as (
        _,
        url,
        line,
    ):
        assert "maskprobe serves mine at" in line
        assert fetch(url, "/v1/models").status == 401
        assert fetch(url, "/v1/models", Authorization="Bearer other secret").status == 401
        assert fetch(url, "/v1/models", x_api_key="other").status == 200
        right = {"Authorization": "Bearer secret"}
        models = fetch(url, "/v1/models", Host="my.host", Origin="https://a.example", **right)
        assert models.json()["data"][0]["id"] == "mine"
        assert models.headers["Access-Control-Allow-Origin"] == "https://a.example"
        for name in ("mine", "smollm2-Q4_0", "smollm2-Q4_0.gguf"):
            assert fetch(url, f"/v1/models/{name}", **right).status == 200
        assert fetch(url, "/v1/chat/completions", {"messages": HELLO * 20}, **right).status == 413


def test_port_in_use() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        line = fails("--port", str(port))
    assert line == f"maskprobe: cannot serve on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--host", "no-such-host.invalid"), "cannot serve on no-such-host.invalid:8080: "),
        (("--host", "203.0.113.1"), "cannot serve on 203.0.113.1:8080: "),
        (("--port", "70000"), "port must be 0 to 65535, got 70000"),
        (("--port", "0", "--model", "nothing.gguf"), "nothing.gguf"),
        (("--api-key", ""), "the API key is empty"),
    ],
    ids=str,
)
def test_bad_options(arguments: tuple[str, ...], why: str) -> None:
    assert why in fails(*arguments)


def test_missing_extra(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    line = fails("--port", "0", env=os.environ | {"PYTHONPATH": path})
    assert line == 'maskprobe: the server needs fastapi: pip install "maskprobe[server]"'
