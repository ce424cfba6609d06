"""One model, many clients: order, a bounded queue, and clients that leave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import (
    DEADLINE,
    DEFERRED,
    DROPPED,
    ENDLESS,
    PROCESSING,
    Gate,
    connect,
    fetch,
    load_for_server,
    metric,
    note_prompts,
    send,
    serving,
    wait_for_metric,
)

from maskprobe import MaskProbeLlama

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with load_for_server(model_path("Q4_0"), n_batch=64, n_ubatch=64) as llm:
        yield llm


@pytest.fixture
def url(llm: MaskProbeLlama) -> Iterator[str]:
    with serving(llm, queue=2) as url:
        yield url


def question(n_words: int, **options: Any) -> dict[str, Any]:
    """A request that can be told from others by its length."""
    return {"messages": [{"role": "user", "content": "word " * n_words}], "temperature": 0, "max_tokens": 12} | options


class Client(threading.Thread):
    """Sends a request in a thread of its own and keeps the reply."""

    def __init__(self, url: str, body: dict[str, Any], **who: Any) -> None:
        super().__init__()
        self._url, self._body, self._who = url, body, who
        self.start()

    def run(self) -> None:
        self.reply = fetch(self._url, CHAT, self._body, **self._who)

    def answer(self) -> Any:
        self.join(DEADLINE)
        assert self.reply.status == 200, self.reply.body
        return self.reply.json()


def test_first_words_come_before_the_second_pass(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with closing(connect(url)) as connection:
        send(connection, CHAT, question(1, stream=True))
        response = connection.getresponse()
        text = ""
        while not text:
            line = response.readline().decode()
            if line.startswith("data: "):
                text = json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
        assert gate.passes == 0
        gate.open()
        assert response.read().decode().endswith("data: [DONE]\n\n")


def test_requests_run_in_order_and_the_queue_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, prompts = Gate(monkeypatch), note_prompts(monkeypatch)
    clients = []
    for i, n_words in enumerate((30, 10, 20)):
        clients.append(Client(url, question(n_words)))
        if i == 0:
            assert gate.reached.wait(DEADLINE)
        wait_for_metric(url, DEFERRED, i)
    assert metric(url, PROCESSING) == 1
    refused = fetch(url, CHAT, question(5))
    assert (refused.status, refused.error()["code"]) == (429, "queue_full")
    assert int(refused.headers["Retry-After"]) > 0
    assert fetch(url, "/health").status == 200
    gate.open()
    answers = [client.answer() for client in clients]
    assert prompts == [answer["usage"]["prompt_tokens"] for answer in answers]
    assert (metric(url, PROCESSING), metric(url, DEFERRED)) == (0, 0)
    assert fetch(url, CHAT, question(5)).status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_frees_the_model_within_a_pass(
    url: str, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    gate = Gate(monkeypatch)
    with closing(connect(url)) as leaver:
        send(leaver, CHAT, question(3, stream=stream, max_tokens=500))
        assert gate.reached.wait(DEADLINE)
        other = Client(url, question(7))
        wait_for_metric(url, DEFERRED, 1)
    wait_for_metric(url, DROPPED, 1)
    gate.open()
    timings = other.answer()["timings"]
    assert gate.passes - timings["passes"] <= 1


def test_client_that_leaves_during_its_prompt(url: str, llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = llm.create_chat_completion(question(7)["messages"], temperature=0.0, max_tokens=12, cache_prompt=False)
    with monkeypatch.context() as patch:
        gate = Gate(patch, "prefill")
        with closing(connect(url)) as leaver:
            send(leaver, CHAT, question(500, cache_prompt=False))  # nine pieces of 64 tokens
            assert gate.reached.wait(DEADLINE)
        wait_for_metric(url, DROPPED, 1)
        gate.open()
        wait_for_metric(url, PROCESSING, 0)
        assert gate.passes <= 1
    answer = fetch(url, CHAT, question(7)).json()
    assert answer["choices"][0]["message"]["content"] == expected["choices"][0]["message"]["content"]


def test_client_that_leaves_the_queue_never_reaches_the_model(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, prompts = Gate(monkeypatch), note_prompts(monkeypatch)
    first = Client(url, question(3))
    assert gate.reached.wait(DEADLINE)
    with closing(connect(url)) as leaver:
        send(leaver, CHAT, question(20))
        wait_for_metric(url, DEFERRED, 1)
    wait_for_metric(url, DEFERRED, 0)
    last = Client(url, question(7))
    wait_for_metric(url, DEFERRED, 1)
    gate.open()
    assert prompts_of(first, last) == prompts
    assert metric(url, DROPPED) == 1


def prompts_of(*clients: Client) -> list[int]:
    return [client.answer()["usage"]["prompt_tokens"] for client in clients]


def test_stopping_the_server_ends_what_runs_and_what_waits(
    llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with ExitStack() as connections:
        with serving(llm) as url:
            running, waiting = (connections.enter_context(closing(connect(url))) for _ in range(2))
            send(running, CHAT, question(3, stream=True, max_tokens=500, logit_bias=ENDLESS))
            assert gate.reached.wait(DEADLINE)
            stream = running.getresponse()
            send(waiting, CHAT, question(7))
            wait_for_metric(url, DEFERRED, 1)
            gate.open()
        *_, last = stream.read().decode().strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        refused = waiting.getresponse()
        assert refused.status == 503
        assert json.loads(refused.read())["error"]["code"] == "shutting_down"


def test_metrics_are_the_sum_of_timings(url: str) -> None:
    timings = [fetch(url, CHAT, question(n)).json()["timings"] for n in (3, 40, 40)]
    for name, key, unit in [
        ("llamacpp:prompt_tokens_total", "prompt_n", 1),
        ("llamacpp:prompt_tokens_cached_total", "cache_n", 1),
        ("llamacpp:prompt_seconds_total", "prompt_ms", 1e-3),
        ("llamacpp:tokens_predicted_total", "predicted_n", 1),
        ("llamacpp:tokens_predicted_seconds_total", "predicted_ms", 1e-3),
        ("llamacpp:spec_decode_num_draft_tokens_total", "draft_n", 1),
        ("llamacpp:spec_decode_num_accepted_tokens_total", "draft_n_accepted", 1),
        ("maskprobe:passes_total", "passes", 1),
        ("maskprobe:rows_total", "rows", 1),
    ]:
        total = sum(timing.get(key, 0) for timing in timings)
        assert total > 0, key
        assert metric(url, name) == pytest.approx(total * unit), name
    assert fetch(url, CHAT, question(2000)).status == 400
    assert metric(url, 'maskprobe:requests_total{outcome="finished"}') == 3
    assert metric(url, 'maskprobe:requests_total{outcome="failed"}') == 1
    assert metric(url, "llamacpp:n_decode_total") > metric(url, "maskprobe:passes_total")
    assert metric(url, "llamacpp:n_busy_slots_per_decode") == 1
    longest = max(timing["cache_n"] + timing["prompt_n"] + timing["predicted_n"] for timing in timings)
    assert metric(url, "llamacpp:n_tokens_max") == longest
    assert metric(url, "llamacpp:predicted_tokens_seconds") > 0
