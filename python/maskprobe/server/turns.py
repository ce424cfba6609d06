"""Jobs that wait, in a fair order: clients take turns, and what one client has sent goes in the order it came in.

Knows clients and order; what is done, and how many may wait, is others' affair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """Whatever waits, for a client."""

    @property
    def client(self) -> str:
        """Who has sent it."""
        ...


Item = TypeVar("Item", bound=Waits)


class Turns(Generic[Item]):
    """A queue for each client, and the clients in the order of their turns."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Item]] = {}
        self._latest: str | None = None  # the client whose turn was the last one

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __contains__(self, item: Item) -> bool:
        return item in self._queues.get(item.client, ())

    def __iter__(self) -> Iterator[Item]:
        """All, in the order in which they will be taken if none is added."""
        queues = list(self._queues.values())
        for i in range(max(map(len, queues), default=0)):
            yield from (queue[i] for queue in queues if i < len(queue))

    def add(self, item: Item) -> None:
        """Puts an item behind its client's others. A client that is new goes behind all but the one served last."""
        if item.client not in self._queues:
            self._queues[item.client] = deque()
            if self._latest is not None and self._latest in self._queues and self._latest != item.client:
                self._put_last(self._latest)
        self._queues[item.client].append(item)

    def take(self) -> Item:
        """The next one; there is one."""
        client = next(iter(self._queues))
        item = self._queues[client][0]
        self.remove(item)
        self._latest = client
        if client in self._queues:
            self._put_last(client)
        return item

    def remove(self, item: Item) -> None:
        """Takes an item out that is there."""
        self._queues[item.client].remove(item)
        if not self._queues[item.client]:
            del self._queues[item.client]

    def one_too_many(self, client: str) -> Item | None:
        """What should give way to a client that comes to a full queue: the latest of whoever has most there.

        None if the client itself has as many, with the one that it comes with.
        """
        longest = max(self._queues.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self._queues.get(client, ())) + 1:
            return None
        return longest[-1]

    def clear(self) -> None:
        """Takes all out."""
        self._queues.clear()

    def _put_last(self, client: str) -> None:
        self._queues[client] = self._queues.pop(client)
