"""Who is next: clients take turns, told by their keys or addresses, and one that sends much makes nobody wait long."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import (
    DEADLINE,
    DEFERRED,
    Gate,
    fetch,
    load_for_server,
    metric,
    note_prompts,
    serving,
    wait_for_metric,
)
from test_server_queue import CHAT, Client, question

from maskprobe import MaskProbeLlama
from maskprobe.server.turns import Turns

ANN, BOB = {"Authorization": "Bearer ann"}, {"x_api_key": "bob"}


@dataclass(frozen=True)
class Item:
    client: str
    n: int


def turns(*names: str) -> Turns[Item]:
    """A queue of items by their clients' names."""
    queue: Turns[Item] = Turns()
    for n, name in enumerate(names):
        queue.add(Item(name, n))
    return queue


def taken(queue: Turns[Item]) -> list[str]:
    listed = list(queue)
    found = [queue.take() for _ in range(len(queue))]
    assert found == listed, "they are taken in the order in which they are listed"
    return [f"{item.client}{item.n}" for item in found]


def test_clients_take_turns() -> None:
    assert taken(turns("a", "a", "a", "b", "c", "b")) == ["a0", "b3", "c4", "a1", "b5", "a2"]


def test_one_alone_is_served_in_order() -> None:
    assert taken(turns(*"aaaa")) == ["a0", "a1", "a2", "a3"]


def test_who_was_served_last_lets_new_ones_go_first() -> None:
    queue = turns(*"aaaa")
    assert queue.take() == Item("a", 0)
    for n, name in enumerate("bcb", 4):
        queue.add(Item(name, n))
    assert taken(queue) == ["b4", "c5", "a1", "b6", "a2", "a3"]


def test_nobody_waits_for_ever() -> None:
    """Not even one who has much to ask, while others come anew again and again."""
    queue = turns(*"aaa")
    queue.take()
    for n in range(20):
        queue.add(Item(f"new{n}", n))
        queue.add(Item(f"newer{n}", n))
        if queue.take().client == "a":
            return
    pytest.fail("a is never served")


def test_any_order_of_coming_and_leaving() -> None:
    """Nothing is lost, each client's come in order, and while one waits each other has one turn at most."""
    rng = random.Random(1)
    for _ in range(200):
        queue, waiting = turns(), list[Item]()
        since: defaultdict[str, list[str]] = defaultdict(list)  # who was served since a client came or was served
        for n in range(60):
            kind = rng.random()
            if kind < 0.55 or not waiting:
                item = Item(rng.choice("abcd"), n)
                if all(other.client != item.client for other in waiting):
                    since[item.client] = []
                queue.add(item)
                waiting.append(item)
            elif kind < 0.65:
                item = rng.choice(waiting)
                queue.remove(item)
                waiting.remove(item)
            else:
                item = queue.take()
                assert item == next(other for other in waiting if other.client == item.client)
                waiting.remove(item)
                since[item.client] = []
                for client in {other.client for other in waiting} - {item.client}:
                    since[client].append(item.client)
                    assert since[client].count(item.client) == 1
            assert sorted(queue, key=waiting.index) == waiting
            assert len(queue) == len(waiting)
            assert all(item in queue for item in waiting)


def test_who_gives_way_in_a_full_queue() -> None:
    queue = turns("a", "b", "a", "a")
    assert queue.one_too_many("c") == queue.one_too_many("b") == Item("a", 3)
    assert queue.one_too_many("a") is None
    assert turns("a", "b").one_too_many("c") is None
    assert turns().one_too_many("a") is None


# --- on the server ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with load_for_server(model_path("Q4_0")) as llm:
        yield llm


class Held:
    """A server whose model is held until all have asked."""

    def __init__(self, url: str, patch: pytest.MonkeyPatch, **headers: str) -> None:
        self._url, self._headers = url, headers
        self._gate, self._prompts = Gate(patch), note_prompts(patch)
        self.clients: list[Client] = []

    def ask(self, n_waiting: int, **who: Any) -> Client:
        """Sends a request of its own length; returns once so many wait."""
        client = Client(self._url, question(5 + 3 * len(self.clients)), **who)
        self.clients.append(client)
        if len(self.clients) == 1:
            assert self._gate.reached.wait(DEADLINE)
        wait_for_metric(self._url, DEFERRED, n_waiting, **self._headers)
        return client

    def order(self) -> list[int]:
        """In which order the model gets the prompts that were not refused."""
        self._gate.open()
        lengths = {}
        for i, client in enumerate(self.clients):
            client.join(DEADLINE)
            if client.reply.status == 200:
                lengths[client.answer()["usage"]["prompt_tokens"]] = i
        return [lengths[length] for length in self._prompts]


@pytest.mark.parametrize(
    ("ann", "bob"),
    [(ANN, BOB), ({"source": "127.0.0.1"}, {"source": "127.0.0.2"})],
    ids=["by key", "by address"],
)
def test_a_single_request_does_not_wait_for_anothers_many(
    llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch, ann: dict[str, str], bob: dict[str, str]
) -> None:
    keys = ("ann", "bob") if ann is ANN else None
    with serving(llm, api_key=keys, queue=9) as url:
        held = Held(url, monkeypatch, **ANN)
        for n, who in enumerate((ann, ann, ann, ann, bob, bob)):
            held.ask(n, **who)
        assert held.order() == [0, 4, 1, 5, 2, 3]


def test_one_key_or_a_header_tells_no_clients_apart(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that names another address in each request gets no more turns by that."""
    with serving(llm, api_key="ann", queue=9) as url:
        held = Held(url, monkeypatch, **ANN)
        for n in range(3):
            held.ask(n, X_Forwarded_For=f"10.0.0.{n}", Forwarded=f"for=10.0.0.{n}", **ANN)
        held.ask(3, source="127.0.0.2", **ANN)
        assert held.order() == [0, 3, 1, 2]


def test_a_full_queue_has_room_for_who_waits_less(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(llm, queue=2) as url:
        held = Held(url, monkeypatch)
        for n in range(3):
            held.ask(n)
        other = held.ask(2, source="127.0.0.2")
        loser = held.clients[2]
        loser.join(DEADLINE)
        assert (loser.reply.status, loser.reply.error()["code"]) == (429, "queue_full")
        assert int(loser.reply.headers["Retry-After"]) > 0
        for source in ("127.0.0.1", "127.0.0.2"):  # each has one there
            assert fetch(url, CHAT, question(2), source=source).status == 429
        assert metric(url, 'maskprobe:requests_total{outcome="refused"}') == 3
        assert held.order() == [0, 3, 1]
        assert other.reply.status == 200
