"""What OpenAI's clients expect beyond llama-cpp-python's dictionaries, and the event stream that carries it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Part = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def event(part: Part) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(part, separators=(",", ":")).encode() + b"\n\n"


def whole(answer: Part) -> Part:
    """An answer in one piece: tool calls are not repeated as the older function_call."""
    for choice in answer["choices"]:
        if "tool_calls" in choice.get("message", ()):
            choice["message"].pop("function_call", None)
    return answer


class Stream:
    """Turns the parts of a stream into chunks.

    OpenAI sends the usage as a chunk of its own, and only if asked; a tool call's id and name come once, because
    clients join what comes.
    """

    def __init__(self, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._named: set[int] = set()  # tool calls whose name is out

    def chunks(self, part: Part) -> Iterator[Part]:
        """The chunks that a part becomes."""
        usage = part.pop("usage", None)
        for choice in part["choices"]:
            if "delta" in choice:
                choice["delta"] = self._delta(choice["delta"])
        yield part | {"usage": None} if self._wants_usage else part
        if usage is not None and self._wants_usage:
            yield part | {"choices": [], "usage": usage}

    def _delta(self, delta: Part) -> Part:
        """The delta without what is null or was said before."""
        delta = {key: value for key, value in delta.items() if value is not None}
        if "tool_calls" in delta:
            delta.pop("function_call", None)
            delta["tool_calls"] = [self._call(call) for call in delta["tool_calls"]]
        return delta

    def _call(self, call: Part) -> Part:
        if call["index"] not in self._named:
            self._named.add(call["index"])
            return call
        return {"index": call["index"], "function": {"arguments": call["function"]["arguments"]}}
