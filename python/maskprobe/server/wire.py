"""What OpenAI's clients expect beyond llama-cpp-python's dictionaries, and the event stream that carries it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .choices import total_usage
from .errors import ApiError
from .worker import Part

_DONE = b"data: [DONE]\n\n"


def event(part: Part, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + json.dumps(part, separators=(",", ":")).encode() + b"\n\n"


class Chunks:
    """The form of OpenAI's chats and completions.

    OpenAI sends the usage as a chunk of its own, and only if asked; a tool call's id and name come once, because
    clients join what comes.
    """

    def __init__(self, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._named: set[tuple[int, int]] = set()  # choices and their tool calls whose name is out
        self._usages: list[Part] = []
        self._last: Part = {}

    def whole(self, answers: Sequence[Part]) -> Part:
        """All choices in one answer; each has its own timings if there are several."""
        if len(answers) > 1:
            for answer in answers:
                answer["choices"][0]["timings"] = answer.pop("timings")
        choices = [choice for answer in answers for choice in answer["choices"]]
        for choice in choices:
            if "tool_calls" in choice.get("message", ()):
                choice["message"].pop("function_call", None)  # the older form of the same
        return answers[0] | {"choices": choices, "usage": total_usage([answer["usage"] for answer in answers])}

    def events(self, part: Part) -> bytes:
        """The chunk that a part becomes."""
        usage = part.pop("usage", None)
        if usage is not None:
            self._usages.append(usage)
        for choice in part["choices"]:
            if "delta" in choice:
                choice["delta"] = self._delta(choice["delta"], choice["index"])
        self._last = part
        return event(part | {"usage": None} if self._wants_usage else part)

    def end(self) -> bytes:
        """The usage, if it was asked for, and the end."""
        if not self._wants_usage:
            return _DONE
        return event(self._last | {"choices": [], "usage": total_usage(self._usages)}) + _DONE

    def failed(self, error: ApiError) -> bytes:
        """The error as the last event."""
        return event(error.body())

    def _delta(self, delta: Part, choice: int) -> Part:
        """The delta without what is null or was said before."""
        delta = {key: value for key, value in delta.items() if value is not None}
        if "tool_calls" in delta:
            delta.pop("function_call", None)
            delta["tool_calls"] = [self._call(call, choice) for call in delta["tool_calls"]]
        return delta

    def _call(self, call: Part, choice: int) -> Part:
        if (choice, call["index"]) not in self._named:
            self._named.add((choice, call["index"]))
            return call
        return {"index": call["index"], "function": {"arguments": call["function"]["arguments"]}}
