"""Responses that later requests may go on from, in memory: the latest ones, within limits."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass

from ..worker import Part

_MOST = 256
_MOST_CHARACTERS = 64 * 2**20  # of JSON, conversations in full


@dataclass(frozen=True)
class Stored:
    """A response, and the conversation that it ends, in items."""

    response: Part
    items: list[Part]


class ResponseStore:
    """Keeps responses by their id; those not asked for the longest go first. Used in the event loop alone."""

    def __init__(self, most: int = _MOST, most_characters: int = _MOST_CHARACTERS) -> None:
        self._most = most
        self._most_characters = most_characters
        self._stored: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
        self._characters = 0

    def put(self, response: Part, items: list[Part]) -> None:
        """Keeps a response, as long as there is room."""
        size = len(json.dumps([response, items]))
        self._stored[response["id"]] = (Stored(response, items), size)
        self._characters += size
        while len(self._stored) > self._most or self._characters > self._most_characters:
            self._characters -= self._stored.popitem(last=False)[1][1]

    def get(self, name: str) -> Stored | None:
        """The response of an id, None if it is not kept."""
        if name not in self._stored:
            return None
        self._stored.move_to_end(name)
        return self._stored[name][0]

    def delete(self, name: str) -> bool:
        """Forgets a response. Returns whether there was one."""
        found = self._stored.pop(name, None)
        if found is not None:
            self._characters -= found[1]
        return found is not None
