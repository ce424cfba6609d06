"""Several requests at once: each gets its own answer, none waits long, and a client that leaves frees its slot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import (
    DEFERRED,
    DROPPED,
    ENDLESS,
    PROCESSING,
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
from maskprobe.core.pool import Pool

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with load_for_server(model_path("Q4_0"), n_parallel=4) as llm:
        yield llm


@pytest.fixture
def url(llm: MaskProbeLlama) -> Iterator[str]:
    with serving(llm, queue=2) as url:
        yield url


def question(text: str, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 16} | options


def test_each_gets_its_own_answer(llm: MaskProbeLlama, url: str) -> None:
    texts = [f"Say {word} and tell me why." for word in ("yes", "no", "red", "blue", "one", "two")]
    requests = [question(text, temperature=0.7 * (i % 2), seed=i) for i, text in enumerate(texts)]

    def answer(request: dict[str, Any]) -> str:
        reply = fetch(url, CHAT, request)
        assert reply.status == 200, reply.body
        return str(reply.json()["choices"][0]["message"]["content"])

    alone = [answer(request) for request in requests]
    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(answer, requests)) == alone
    assert len(set(alone)) > 3


def test_slots_queue_and_clients_that_leave(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, passing=Pool)
    long = question("Count.", max_tokens=500, logit_bias=ENDLESS)
    dropped = metric(url, DROPPED)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(url))) for _ in range(6)]
        for connection in connections:
            send(connection, CHAT, long)
        wait_for_metric(url, PROCESSING, 4)
        wait_for_metric(url, DEFERRED, 2)
        slots = fetch(url, "/slots").json()
        assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
        assert all(slot["is_processing"] for slot in slots)
        assert len({slot["id_task"] for slot in slots}) == 4
        assert fetch(url, "/props").json()["total_slots"] == 4
        assert fetch(url, "/slots?fail_on_no_slot=1").status == 503
        assert fetch(url, CHAT, long).status == 429
        gate.open()
    wait_for_metric(url, PROCESSING, 0)
    assert metric(url, DROPPED) == dropped + 6
    assert fetch(url, "/slots?fail_on_no_slot=1").status == 200
    assert fetch(url, CHAT, question("Hello.")).status == 200


def test_a_short_request_does_not_wait_for_long_ones(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, passing=Pool)
    gate.open()
    long = question("Tell me a long story.", max_tokens=300, logit_bias=ENDLESS, stream=True)
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(closing(connect(url)))
            send(connection, CHAT, long)
            response = connection.getresponse()
            while b'"content"' not in (line := response.fp.readline()) or b'"content":""' in line:
                pass
        before = gate.passes
        reply = fetch(url, CHAT, question("Hi.", max_tokens=1, cache_prompt=False)).json()
        n_pieces = -(-reply["timings"]["prompt_n"] // 13)  # three rows of sixteen are the others'
        assert gate.passes - before <= n_pieces + 3


def test_streams_come_side_by_side(url: str) -> None:
    """Parts of two streams alternate: none is finished before the other has begun."""
    request = question("Name some birds.", max_tokens=40, logit_bias=ENDLESS, stream=True)
    with closing(connect(url)) as one, closing(connect(url)) as two:
        for connection in (one, two):
            send(connection, CHAT, request)
        first, second = one.getresponse(), two.getresponse()
        texts = []
        for response in (first, second):
            events = [json.loads(line[6:]) for line in response.read().split(b"\n\n") if line.startswith(b"data: {")]
            texts.append("".join(event["choices"][0]["delta"].get("content") or "" for event in events))
    assert texts[0] == texts[1] != ""
