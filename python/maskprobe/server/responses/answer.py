"""Answers of chats as those of the Responses API: items, and the events by which they grow."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from ..errors import ApiError
from ..wire import event
from ..worker import Part
from .body import ResponsesRequest

_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


def new_response(request: ResponsesRequest, model: str) -> Part:
    """A response that has nothing in it yet."""
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": request.reasoning.effort, "summary": None},
        "store": request.store,
        "temperature": request.temperature,
        "text": {"format": request.text.format},
        "tool_choice": request.tool_choice,
        "tools": [{"strict": None} | tool for tool in request.tools if tool.get("type") == "function"],
        "top_p": request.top_p,
        "truncation": request.truncation,
        "usage": None,
    }


class ResponseForm:
    """The form of one response.

    Args:
        response: :func:`new_response`, which becomes the whole one.
        done: is called with it at the end, unless it has failed.
    """

    def __init__(self, response: Part, done: Callable[[Part], None]) -> None:
        self._response = response
        self._done = done
        self._reason = "stop"
        self._n_events = 0
        self._item: Part | None = None  # that is growing
        self._call = -1  # the index of the call that it is

    def whole(self, answers: Sequence[Part]) -> Part:
        """The response of a whole answer."""
        [answer] = answers
        for _ in self._grow(answer, answer["choices"][0]["message"]):
            pass
        for _ in self._finish():
            pass
        return self._response

    def events(self, part: Part) -> bytes:
        """The events of a chunk."""
        return b"".join(self._begun()) + b"".join(self._grow(part, part["choices"][0]["delta"]))

    def end(self) -> bytes:
        """The events at the end."""
        return b"".join(self._finish())

    def failed(self, error: ApiError) -> bytes:
        """The response with its error."""
        code = _CODES.get(error.status_code, "server_error")
        begun = b"".join(self._begun())
        self._response |= {"status": "failed", "error": {"code": code, "message": error.detail}}
        return begun + self._event("response.failed", response=self._response)

    def _begun(self) -> Iterator[bytes]:
        if self._n_events == 0:
            yield self._event("response.created", response=self._response)
            yield self._event("response.in_progress", response=self._response)

    def _grow(self, part: Part, said: Part) -> Iterator[bytes]:
        """What a message or a piece of one adds."""
        if said.get("reasoning_content"):
            yield from self._text("reasoning", said["reasoning_content"])
        if said.get("content"):
            yield from self._text("message", said["content"])
        for i, call in enumerate(said.get("tool_calls") or ()):
            yield from self._arguments(call, call.get("index", i))
        self._reason = part["choices"][0]["finish_reason"] or self._reason
        if "usage" in part:
            self._response |= {"usage": _usage(part["usage"]), "timings": part.get("timings")}

    def _finish(self) -> Iterator[bytes]:
        cut = self._reason == "length"
        if not self._response["output"] and self._item is None:
            yield from self._open(_message_item())
        yield from self._close("incomplete" if cut else "completed")
        self._response["status"] = "incomplete" if cut else "completed"
        if cut:
            self._response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._response["completed_at"] = int(time.time())
        self._done(self._response)
        yield self._event(f"response.{self._response['status']}", response=self._response)

    # --- items ----------------------------------------------------------------------------------------

    def _text(self, kind: str, text: str) -> Iterator[bytes]:
        if self._item is None or self._item["type"] != kind:
            yield from self._open(_message_item() if kind == "message" else _reasoning_item())
        assert self._item is not None, "opened"
        self._item["content"][0]["text"] += text
        name = "response.output_text.delta" if kind == "message" else "response.reasoning_text.delta"
        yield self._event(name, delta=text, content_index=0, **self._place(), **_logprobs(kind))

    def _arguments(self, call: Part, index: int) -> Iterator[bytes]:
        if self._item is None or self._item["type"] != "function_call" or self._call != index:
            yield from self._open(_call_item(call))
            self._call = index
        assert self._item is not None, "opened"
        arguments = call["function"]["arguments"]
        if arguments:
            self._item["arguments"] += arguments
            yield self._event("response.function_call_arguments.delta", delta=arguments, **self._place())

    def _open(self, item: Part) -> Iterator[bytes]:
        yield from self._close("completed")
        self._item = item
        parts = item.get("content", [])
        empty = item | {"content": []} if parts else item
        index = len(self._response["output"])
        yield self._event("response.output_item.added", output_index=index, item=empty)
        if parts:
            yield self._event("response.content_part.added", part=parts[0], content_index=0, **self._place())

    def _close(self, status: str) -> Iterator[bytes]:
        item, place = self._item, self._place()
        if item is None:
            return
        if item["type"] == "function_call":
            yield self._event(
                "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"], **place
            )
        else:
            kind, part = item["type"], item["content"][0]
            name = "response.output_text.done" if kind == "message" else "response.reasoning_text.done"
            yield self._event(name, text=part["text"], content_index=0, **place, **_logprobs(kind))
            yield self._event("response.content_part.done", part=part, content_index=0, **place)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)
        self._response["output"].append(item)
        self._item = None

    def _place(self) -> Part:
        return {"item_id": (self._item or {}).get("id"), "output_index": len(self._response["output"])}

    def _event(self, kind: str, **fields: object) -> bytes:
        self._n_events += 1
        return event({"type": kind, "sequence_number": self._n_events - 1, **fields}, kind)


def _message_item() -> Part:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return {"id": _id("msg"), "type": "message", "role": "assistant", "status": "in_progress", "content": [part]}


def _reasoning_item() -> Part:
    part = {"type": "reasoning_text", "text": ""}
    return {"id": _id("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": [part]}


def _call_item(call: Part) -> Part:
    name = call["function"]["name"]
    head = {"id": _id("fc"), "type": "function_call", "status": "in_progress", "call_id": call["id"]}
    return head | {"name": name, "arguments": ""}


def _logprobs(kind: str) -> Part:
    return {"logprobs": []} if kind == "message" else {}


def _usage(usage: Part) -> Part:
    """The API's usage. What it asks for and nobody counts here is 0."""
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": usage["prompt_tokens_details"] | {"cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0} | usage.get("completion_tokens_details", {}),
        "total_tokens": usage["total_tokens"],
    }


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
