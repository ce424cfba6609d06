"""Requests that wait: what is wrong with them is said at once, and streams show that they live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import (
    DEADLINE,
    HELLO,
    Gate,
    connect,
    fetch,
    load_for_server,
    metric,
    send,
    serving,
    wait_for_metric,
)

from maskprobe import MaskProbeLlama
from maskprobe.core.session import Pass, Session
from maskprobe.errors import DecodeError
from maskprobe.server import Patience

CHAT = "/v1/chat/completions"
SHORT = Patience(status=0.2, comment=0.2)
BODY = {"messages": HELLO, "max_tokens": 3, "temperature": 0}


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with load_for_server(model_path("Q4_0")) as llm:
        yield llm


@pytest.fixture
def url(llm: MaskProbeLlama) -> Iterator[str]:
    with serving(llm, patience=SHORT) as url:
        yield url


@pytest.fixture
def patient(llm: MaskProbeLlama) -> Iterator[str]:
    """A server that sends no status before it knows one."""
    with serving(llm, patience=Patience(status=DEADLINE)) as url:
        yield url


@contextmanager
def busy(url: str, patch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """While another request holds the model."""
    gate = Gate(patch)
    with closing(connect(url)) as first:
        send(first, CHAT, BODY)
        assert gate.reached.wait(DEADLINE)
        try:
            yield gate
        finally:
            gate.open()
            first.getresponse().read()


def test_a_stream_that_waits_gets_its_headers_and_comments(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with busy(url, monkeypatch) as gate, closing(connect(url)) as connection:
        send(connection, CHAT, BODY | {"stream": True})
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        waiting = [response.readline() for _ in range(6)]
        assert waiting == [b": waiting\n", b"\n"] * 3
        gate.open()
        events = [event for event in response.read().decode().split("\n\n") if event.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    text = "".join(json.loads(event[6:])["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert text == fetch(url, CHAT, BODY).json()["choices"][0]["message"]["content"]


def test_a_stream_that_need_not_wait_has_no_comments(url: str) -> None:
    assert b": waiting" not in fetch(url, CHAT, BODY | {"stream": True}).body


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"temperature": 3}, 400, "temperature"),
        ({"model": "gpt-5"}, 404, "model"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "messages"),
        ({"grammar": "root ::= root"}, 400, "grammar"),
        ({"logit_bias": {"99999999": 1}}, 400, "logit_bias"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_wrong_with_a_stream_is_said_before_its_turn(
    patient: str, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], status: int, param: str
) -> None:
    with busy(patient, monkeypatch):
        reply = fetch(patient, CHAT, BODY | {"stream": True} | fields)
        assert (reply.status, reply.error()["param"]) == (status, param)
        assert metric(patient, "llamacpp:requests_deferred") == 0


def test_a_grammar_that_was_checked_beside_a_generation_is_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with busy(url, monkeypatch) as gate, closing(connect(url)) as connection:
        send(connection, CHAT, BODY | {"stream": True, "grammar": 'root ::= "yes"', "logprobs": True})
        response = connection.getresponse()
        gate.open()
        events = [event for event in response.read().decode().split("\n\n") if event.startswith("data: {")]
    text = "".join(json.loads(event[6:])["choices"][0]["delta"].get("content", "") for event in events)
    assert text == "yes"


def test_a_failure_after_the_headers_is_an_event(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(session: Session, passed: Pass) -> None:
        time.sleep(3 * SHORT.status)
        raise DecodeError("llama_decode failed")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "prefill", fails)
        reply = fetch(url, CHAT, BODY | {"stream": True, "cache_prompt": False})
    assert reply.status == 200
    *comments, last = reply.body.decode().strip().split("\n\n")
    assert set(comments) == {": waiting"}
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"


def test_a_waiting_stream_whose_client_leaves(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with busy(url, monkeypatch):
        with closing(connect(url)) as leaver:
            send(leaver, CHAT, BODY | {"stream": True})
            assert leaver.getresponse().status == 200
            wait_for_metric(url, "llamacpp:requests_deferred", 1)
        wait_for_metric(url, "llamacpp:requests_deferred", 0)


def test_silence_in_mid_stream_is_filled_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        gate = Gate(monkeypatch)
        connection = stack.enter_context(closing(connect(url)))
        send(connection, CHAT, BODY | {"stream": True})
        response = connection.getresponse()
        line = b""
        while line != b": waiting\n":
            line = response.readline()
        gate.open()
        assert response.read().endswith(b"data: [DONE]\n\n")
