"""A served model that says what a test wants: chunks of a chat in place of a generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from maskprobe import MaskProbeLlama

TIMINGS = {"cache_n": 7, "prompt_n": 4, "prompt_ms": 1.0, "predicted_n": 5, "predicted_ms": 1.0, "passes": 4, "rows": 9}
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
ENVELOPE = {"id": "chatcmpl-1", "created": 1700000000, "model": "smollm2"}


def call(index: int, name: str, *pieces: str) -> list[dict[str, Any]]:
    """The deltas of a tool call."""
    first = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
    return [{"tool_calls": [part]} for part in (first, *rest)]


def reasoning(*pieces: str) -> list[dict[str, Any]]:
    return [{"reasoning_content": piece} for piece in pieces]


def content(*pieces: str) -> list[dict[str, Any]]:
    return [{"content": piece} for piece in pieces]


@contextmanager
def saying(
    patch: pytest.MonkeyPatch, deltas: Sequence[Mapping[str, Any]], reason: str = "stop", fails: Exception | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Every chat is answered with these deltas. Gives the arguments of the chats so far.

    Args:
        fails: raised in place of the end.
    """
    asked: list[dict[str, Any]] = []

    def answer(
        self: MaskProbeLlama, *, stream: bool = False, before_pass: Callable[[], None] | None = None, **arguments: Any
    ) -> Any:
        asked.append(arguments)
        return _chunks() if stream else _whole()

    def _chunks() -> Iterator[dict[str, Any]]:
        for delta in ({"role": "assistant"}, *deltas):
            yield _chunk(dict(delta), None)
        if fails is not None:
            raise fails
        yield _chunk({}, reason) | {"usage": dict(USAGE), "timings": dict(TIMINGS)}

    def _whole() -> dict[str, Any]:
        if fails is not None:
            raise fails
        choice = {"index": 0, "message": joined(deltas), "logprobs": None, "finish_reason": reason}
        answer = ENVELOPE | {"object": "chat.completion", "choices": [choice]}
        return answer | {"usage": dict(USAGE), "timings": dict(TIMINGS)}

    with patch.context() as context:
        context.setattr(MaskProbeLlama, "create_chat_completion", answer)
        yield asked


def joined(deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The message that deltas make."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for delta in deltas:
        for key in ("content", "reasoning_content"):
            if key in delta:
                message[key] = (message.get(key) or "") + delta[key]
        for part in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if part["index"] == len(calls):
                calls.append({key: part[key] for key in ("id", "type")} | {"function": dict(part["function"])})
            else:
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return message


def _chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return ENVELOPE | {"object": "chat.completion.chunk", "choices": [choice]}
