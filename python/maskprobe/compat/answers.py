"""Completions as answers in a chat: OpenAI's dictionaries, whole or in chunks, of what a parser finds in the text.

Knows dictionaries; leaves prompts to the chat room, what a text holds to replies and decoding to MaskProbeLlama.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator, Sequence
from typing import Any

from ..replies.events import CallArguments, CallBegins, CallEnds, Content, Event, Leftover, Reasoning
from ..replies.parser import Parser
from .envelopes import Scored, text_of

Part = dict[str, Any]

# Made ids of calls: nine letters and digits, because templates of Mistral's refuse others.
_ID_CHARACTERS = string.ascii_letters + string.digits
_ID_LENGTH = 9


def chat_logprobs(tokens: list[Scored]) -> dict[str, Any]:
    """Log-probabilities as OpenAI's chats have them."""
    content = [
        _token(token.piece, token.logprob)
        | {"top_logprobs": [_token(piece, logprob) for piece, logprob in token.top or [(token.piece, token.logprob)]]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text_of(piece), "bytes": list(piece), "logprob": logprob}


def answer_chunks(parts: Iterator[Part], parser: Parser) -> Iterator[Part]:
    """The chat.completion.chunks of a streamed completion; the last has its usage and timings.

    The log-probabilities of all tokens, and whether they were drafted, come in order, those of reasoning and calls too,
    each with the first chunk that comes after its text.
    """
    reply = _Reply(parser)
    logprobs: Part | None = None
    drafted: list[bool] = []
    for i, part in enumerate(parts):
        [choice] = part["choices"]
        reason = choice["finish_reason"]
        logprobs = _joined(logprobs, choice["logprobs"])
        drafted += choice.get("drafted", ())
        if i == 0:
            yield _chunk(part, {"role": "assistant"})
        for delta in reply.deltas(choice["text"], is_last=reason is not None):
            yield _chunk(part, delta, logprobs, drafted=drafted)
            logprobs, drafted = None, []
        if reason is not None:
            figures = {key: part[key] for key in ("usage", "timings")}
            last = _chunk(part, {}, logprobs, reply.finish_reason(reason), drafted) | figures
            last["choices"][0] |= _stop_reason(choice)
            yield last


def whole_answer(chunks: Iterator[Part], *, with_function: bool) -> Part:
    """The chunks of a streamed answer as one chat.completion.

    Args:
        with_function: tell the first call under the older ``function_call`` as well.
    """
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: list[dict[str, Any]] = []
    logprobs: Part | None = None
    drafted: list[bool] = []
    for chunk in chunks:
        [choice] = chunk["choices"]
        drafted += choice.get("drafted", ())
        logprobs = _joined(logprobs, choice["logprobs"])
        delta = choice["delta"]
        for key in {"content", "reasoning_content"} & delta.keys():
            message[key] = (message.get(key) or "") + delta[key]
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "type": call["type"], "function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = calls
        if with_function:
            message["function_call"] = dict(calls[0]["function"])
    elif message["content"] is None:
        message["content"] = ""
    answer = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": choice["finish_reason"]}
    answer |= _stop_reason(choice)
    return chunk | {"object": "chat.completion", "choices": [answer | ({"drafted": drafted} if drafted else {})]}


class _Reply:
    """Turns text into deltas."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._n_open = 0  # calls that have begun and not ended
        self._is_whole = False  # the text ends with a whole call, as far as it has come
        self._has_called = False

    def deltas(self, text: str, *, is_last: bool) -> Iterator[Part]:
        """What a piece of text adds to the message."""
        events = self._parser.feed(text)
        for event in [*events, *self._parser.finish()] if is_last else events:
            if (delta := self._delta(event)) is not None:
                yield delta

    def _delta(self, event: Event) -> Part | None:
        self._is_whole = isinstance(event, CallEnds)
        match event:
            case Content(text) | Leftover(text):
                return {"content": text}
            case Reasoning(text):
                return {"reasoning_content": text}
            case CallBegins(index, name, own_id):
                self._n_open += 1
                function = {"name": name, "arguments": ""}
                return {
                    "tool_calls": [
                        {"index": index, "id": own_id or _new_id(), "type": "function", "function": function}
                    ]
                }
            case CallArguments(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
            case CallEnds():
                self._n_open -= 1
                self._has_called = True
        return None

    def finish_reason(self, reason: str) -> str:
        """Why the answer ends: for a call if it is whole, and nothing that the limit has cut follows it."""
        is_call = self._has_called and not self._n_open and (reason == "stop" or self._is_whole)
        return "tool_calls" if is_call else reason


def _new_id() -> str:
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))


def _joined(before: Part | None, more: Part | None) -> Part | None:
    """Log-probabilities of tokens in a row."""
    if before is None or more is None:
        return before or more
    return before | {"content": before["content"] + more["content"]}


def _stop_reason(choice: Part) -> Part:
    """The stop string that ended the choice, if one did."""
    return {"stop_reason": choice["stop_reason"]} if "stop_reason" in choice else {}


def _chunk(
    part: Part, delta: Part, logprobs: Part | None = None, reason: str | None = None, drafted: Sequence[bool] = ()
) -> Part:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    if drafted:
        choice["drafted"] = drafted
    envelope = {"created": part["created"], "model": part["model"], "choices": [choice]}
    return {"id": f"chat{part['id']}", "object": "chat.completion.chunk"} | envelope
