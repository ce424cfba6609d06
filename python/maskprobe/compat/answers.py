"""Completions as answers in a chat: OpenAI's dictionaries, whole or in chunks, as text or as the call of a tool.

Knows dictionaries; leaves prompts to the chat room and decoding to MaskProbeLlama.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .envelopes import Scored, text_of

Part = dict[str, Any]


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


def whole_answer(completion: Part, tool: str | None) -> Part:
    """A chat.completion made of a text_completion; with a tool the text is the arguments of its call."""
    [choice] = completion["choices"]
    text, reason = choice["text"], choice["finish_reason"]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if tool is not None:
        function = {"name": tool, "arguments": text}
        call = {"id": _call_id(completion, tool), "type": "function", "function": function}
        message |= {"content": None, "function_call": function, "tool_calls": [call]}
        reason = _reason(text, reason)
    answer = {"index": 0, "message": message, "logprobs": choice["logprobs"], "finish_reason": reason}
    answer |= _drafted(choice)
    rest = {key: completion[key] for key in ("usage", "timings")}
    return _envelope(completion, "chat.completion") | {"choices": [answer]} | rest


def answer_chunks(parts: Iterator[Part], tool: str | None) -> Iterator[Part]:
    """The chat.completion.chunks of a streamed completion; the last has its usage and timings."""
    texts: list[str] = []
    for i, part in enumerate(parts):
        [choice] = part["choices"]
        text, reason = choice["text"], choice["finish_reason"]
        texts.append(text)
        if i == 0:
            yield _chunk(part, {"role": "assistant"} | ({} if tool is None else {"content": None}))
        if reason is None:
            delta = {"content": text} if tool is None else _call_delta(part, tool, text)
            chunk = _chunk(part, delta, choice["logprobs"])
            chunk["choices"][0] |= _drafted(choice)
            yield chunk
        else:
            reason = reason if tool is None else _reason("".join(texts), reason)
            yield _chunk(part, {}, None, reason) | {key: part[key] for key in ("usage", "timings")}


def _call_delta(part: Part, tool: str, text: str) -> dict[str, Any]:
    function = {"name": tool, "arguments": text}
    call = {"index": 0, "id": _call_id(part, tool), "type": "function", "function": function}
    return {"content": None, "function_call": function, "tool_calls": [call]}


def _reason(arguments: str, reason: str) -> str:
    """A call is one when its arguments are whole; a limit or a stop string may have cut them."""
    try:
        json.loads(arguments)
    except ValueError:
        return reason
    return "tool_calls"


def _call_id(part: Part, tool: str) -> str:
    return f"call__0_{tool}_{part['id']}"


def _drafted(choice: Part) -> Part:
    """Which tokens of the choice were drafted, where asked for."""
    return {"drafted": choice["drafted"]} if "drafted" in choice else {}


def _envelope(part: Part, kind: str) -> Part:
    return {"id": f"chat{part['id']}", "object": kind, "created": part["created"], "model": part["model"]}


def _chunk(part: Part, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> Part:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return _envelope(part, "chat.completion.chunk") | {"choices": [choice]}
