"""Several requests at once: each gets its own answer, none waits long, and a client that leaves frees its slot."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from maskprobe.core.session import Pass, Session

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


def read_to_first_word(response: http.client.HTTPResponse) -> None:
    while b'"content"' not in (line := response.fp.readline()) or b'"content":""' in line:
        pass


class Held:
    """Holds the model before its passes until it is opened; counts them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.prompts: dict[Session, int] = {}  # lengths of those that lanes are at
        self.passes: list[list[int]] = []  # for each the lengths of its lanes' prompts
        self.gate = threading.Event()
        step, begin = Pool.step, Session.begin

        def noted(session: Session, prompt: list[int], *arguments: Any, **options: Any) -> int:
            self.prompts[session] = len(prompt)
            return begin(session, prompt, *arguments, **options)

        def held(pool: Pool, lanes: Sequence[int], outs: Sequence[Pass]) -> list[BaseException | None]:
            assert self.gate.wait(DEADLINE)
            self.passes.append([self.prompts[pool.lanes[lane]] for lane in lanes])
            return step(pool, lanes, outs)

        patch.setattr(Session, "begin", noted)
        patch.setattr(Pool, "step", held)


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
    held = Held(monkeypatch)
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
        held.gate.set()
    wait_for_metric(url, PROCESSING, 0)
    assert metric(url, DROPPED) == dropped + 6
    assert fetch(url, "/slots?fail_on_no_slot=1").status == 200
    assert fetch(url, CHAT, question("Hello.")).status == 200


def test_a_short_request_does_not_wait_for_long_ones(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    held.gate.set()
    long = question("Tell me a long story.", max_tokens=300, logit_bias=ENDLESS, stream=True)
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(closing(connect(url)))
            send(connection, CHAT, long)
            read_to_first_word(connection.getresponse())
        before = len(held.passes)
        reply = fetch(url, CHAT, question("Hi.", max_tokens=1, cache_prompt=False)).json()
        n_pieces = -(-reply["timings"]["prompt_n"] // 13)  # three rows of sixteen are the others'
        assert len(held.passes) - before <= n_pieces + 3


def test_a_client_that_leaves_frees_its_lane_within_a_pass(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on with their own answers, and one that waits gets the lane while they do."""
    stays = [
        question(f"Write about {what}.", max_tokens=60, logit_bias=ENDLESS) for what in ("birds", "the sea", "tea")
    ]
    alone = [fetch(url, CHAT, request).json()["choices"][0]["message"]["content"] for request in stays]
    held, dropped = Held(monkeypatch), metric(url, DROPPED)
    held.gate.set()
    with ThreadPoolExecutor(4) as clients:
        with closing(connect(url)) as leaver:
            send(leaver, CHAT, question("Tell me everything. " * 5, max_tokens=900, logit_bias=ENDLESS, stream=True))
            read_to_first_word(leaver.getresponse())
            [n_prompt] = held.prompts.values()
            held.gate.clear()
            others = [clients.submit(fetch, url, CHAT, request) for request in stays]
            wait_for_metric(url, PROCESSING, 4)
            waiting = clients.submit(fetch, url, CHAT, question("Hi.", max_tokens=2))
            wait_for_metric(url, DEFERRED, 1)
        wait_for_metric(url, DROPPED, dropped + 1)
        before = len(held.passes)
        held.gate.set()
        assert waiting.result(DEADLINE).status == 200
        n_then = len(held.passes)
        found = [other.result(DEADLINE).json()["choices"][0]["message"]["content"] for other in others]
    assert found == alone
    assert sum(n_prompt in lengths for lengths in held.passes[before:]) <= 1
    assert len(held.passes) > n_then, "the one that waited has its answer while others go on"


def test_a_shared_pass_counts_once(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    request = question("Name some birds.", max_tokens=40, logit_bias=ENDLESS)
    with serving(llm) as url:
        held = Held(monkeypatch)
        with ThreadPoolExecutor(3) as clients:
            replies = [clients.submit(fetch, url, CHAT, request) for _ in range(3)]
            wait_for_metric(url, PROCESSING, 3)
            held.gate.set()
            timings = [reply.result(DEADLINE).json()["timings"] for reply in replies]
        n_decode = metric(url, "llamacpp:n_decode_total")
        assert n_decode == len(held.passes)
        assert n_decode < metric(url, "maskprobe:passes_total") == sum(one["passes"] for one in timings)
        assert 2 < metric(url, "llamacpp:n_busy_slots_per_decode") <= 3
        used = [i for i in range(4) if metric(url, f'maskprobe:slot_passes_total{{slot="{i}"}}')]
        assert len(used) == 3
        for name, key in [
            ("slot_prompt_tokens", "prompt_n"),
            ("slot_tokens_predicted", "predicted_n"),
            ("slot_passes", "passes"),
            ("slot_rows", "rows"),
            ("slot_draft_tokens", "draft_n"),
            ("slot_accepted_tokens", "draft_n_accepted"),
        ]:
            found = sorted(metric(url, f'maskprobe:{name}_total{{slot="{i}"}}') for i in used)
            assert found == sorted(one.get(key, 0) for one in timings), name
        assert sum(metric(url, f'maskprobe:slot_processing{{slot="{i}"}}') for i in range(4)) == 0


def test_one_user_has_what_one_has_alone(url: str, llm: MaskProbeLlama) -> None:
    """The whole context, and the answers of a model that has no lanes."""
    texts = ["Name the seven days of the week.", "Why is the sky blue? " * 9]
    options: dict[str, Any] = {"n_batch": 32, "n_ubatch": 32}  # prompts are rounded as rows of answers are
    with load_for_server(llm.model_path, **options) as single:
        assert llm.n_ctx() == single.n_ctx()
        for text in texts:
            request = question(text, max_tokens=30)
            expected = single.create_chat_completion(**request, cache_prompt=False)
            assert fetch(url, CHAT, request).json()["choices"][0]["message"] == expected["choices"][0]["message"]
    full = fetch(url, CHAT, question("word " * 900, max_tokens=-1, logit_bias=ENDLESS)).json()
    assert full["usage"]["total_tokens"] == llm.n_ctx()
    assert full["choices"][0]["finish_reason"] == "length"


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
