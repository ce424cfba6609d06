"""Answers of chats as those of the Messages API: content blocks, and the events by which they grow."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence

from ..errors import ApiError
from ..wire import event
from ..worker import Part

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}
_PATH = "/v1/messages"
# By type of a block: the type of the deltas by which it grows, and their field.
_DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class MessageForm:
    """The form of one message.

    Args:
        model: its name.
        stops: the strings of the request that end a message.
    """

    def __init__(self, model: str, stops: Sequence[str] = ()) -> None:
        self._stops = stops
        self._message: Part = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},  # known at the end
        }
        self._begun = False
        self._n_blocks = 0
        self._open: tuple[str, int] | None = None  # the type of the block that is growing, and which call it is
        self._last: Part = {}

    def whole(self, answers: Sequence[Part]) -> Part:
        """The message of a whole answer."""
        [answer] = answers
        said = answer["choices"][0]["message"]
        content: list[Part] = []
        if said.get("reasoning_content"):
            content.append({"type": "thinking", "thinking": said["reasoning_content"], "signature": ""})
        if said.get("content"):
            content.append({"type": "text", "text": said["content"]})
        for call in said.get("tool_calls") or ():
            content.append(_tool_use(call) | {"input": _object(call["function"]["arguments"])})
        end = {"usage": _usage(answer["usage"]), "timings": answer.get("timings")}
        return self._message | {"content": content} | self._why(answer) | end

    def events(self, part: Part) -> bytes:
        """The events of a chunk."""
        delta = part["choices"][0]["delta"]
        if part["choices"][0]["finish_reason"] is not None:
            self._last = part
        return b"".join([*self._begin(), *self._grow(delta)])

    def end(self) -> bytes:
        """The events at the end."""
        delta = self._why(self._last)
        usage, timings = _usage(self._last["usage"]), self._last.get("timings")
        last = _event("message_delta", delta=delta, usage=usage, timings=timings)
        return b"".join([*self._close(), last, _event("message_stop")])

    def failed(self, error: ApiError) -> bytes:
        """The error as the last event."""
        return event(error.body(_PATH), "error")

    def _why(self, part: Part) -> Part:
        """Why the message ends."""
        choice = part["choices"][0]
        if choice["finish_reason"] == "stop" and (stop := choice.get("stop_reason")) in self._stops:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": _REASONS.get(choice["finish_reason"], "end_turn"), "stop_sequence": None}

    def _begin(self) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield _event("message_start", message=self._message)
            yield _event("ping")

    def _grow(self, delta: Part) -> Iterator[bytes]:
        if delta.get("reasoning_content"):
            yield from self._put({"type": "thinking", "thinking": "", "signature": ""}, delta["reasoning_content"])
        if delta.get("content"):
            yield from self._put({"type": "text", "text": ""}, delta["content"])
        for call in delta.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            is_open = self._open == ("tool_use", call["index"])
            yield from self._put({"type": "tool_use"} if is_open else _tool_use(call), arguments, call["index"])

    def _put(self, block: Part, text: str, which: int = 0) -> Iterator[bytes]:
        """Text for a block, which is begun where none like it is growing."""
        kind = block["type"]
        if self._open != (kind, which):
            yield from self._close()
            self._open = (kind, which)
            yield _event("content_block_start", index=self._n_blocks, content_block=block)
        if text:
            name, key = _DELTAS[kind]
            yield _event("content_block_delta", index=self._n_blocks, delta={"type": name, key: text})

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            if self._open[0] == "thinking":
                yield _event("content_block_delta", index=self._n_blocks, delta=_SIGNATURE)
            yield _event("content_block_stop", index=self._n_blocks)
            self._n_blocks += 1
            self._open = None


_SIGNATURE = {"type": "signature_delta", "signature": ""}  # nobody signs here


def _event(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, kind)


def _tool_use(call: Part) -> Part:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": {}}


def _object(arguments: str) -> Part:
    """The arguments of a call; those that were cut by a limit are none."""
    try:
        found = json.loads(arguments)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _usage(usage: Part) -> Part:
    """The API's usage, which counts cached tokens apart."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage["completion_tokens"],
    }
