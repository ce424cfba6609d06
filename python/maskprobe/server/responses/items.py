"""Items of the Responses API as messages and tools of a chat. Raises what is wrong with an item by its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..translation import text_at, wrong
from ..worker import Part

_TEXTS = ("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text")


def messages_of(items: Sequence[Part], n_before: int = 0) -> list[Part]:
    """The messages that items stand for.

    What the model has said in one turn, as reasoning, text and calls, is one message.

    Args:
        items: of the conversation.
        n_before: how many of them are no part of the request, which errors do not count.
    """
    messages: list[Part] = []
    for i, item in enumerate(items):
        _add(messages, item, f"input[{i - n_before}]")
    return messages


def _add(messages: list[Part], item: Part, at: str) -> None:
    kind = item.get("type") or "message"
    if kind == "message":
        role, content = text_at(item, "role", at), _content(item.get("content"), f"{at}.content")
        if role == "assistant":
            _turn(messages, unlike=("content", "tool_calls"))["content"] = content
        else:
            messages.append({"role": role, "content": content})
    elif kind == "reasoning":
        texts = _content(item.get("content") or item.get("summary") or [], f"{at}.content")
        _turn(messages, unlike=("reasoning_content", "content", "tool_calls"))["reasoning_content"] = texts
    elif kind == "function_call":
        function = {"name": text_at(item, "name", at), "arguments": text_at(item, "arguments", at)}
        call = {"id": text_at(item, "call_id", at), "type": "function", "function": function}
        _turn(messages, unlike=()).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        content = _content(item.get("output"), f"{at}.output")
        messages.append({"role": "tool", "tool_call_id": text_at(item, "call_id", at), "content": content})
    else:
        raise wrong(
            f"{at}.type",
            f"{kind!r:.80} is no item that this server reads: message, reasoning, function_call "
            "and function_call_output are",
        )


def _turn(messages: list[Part], unlike: Sequence[str]) -> Part:
    """The model's turn at the end of messages, a new one where there is none or it has one of these already."""
    if not messages or messages[-1]["role"] != "assistant" or any(messages[-1].get(key) for key in unlike):
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _content(content: Any, at: str) -> Any:
    """Text, or parts of it as chats have them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(at, f"must be a text or a list of parts, got {content!r:.80}")
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in _TEXTS:
            raise wrong(f"{at}[{i}]", f"must be of the type input_text or output_text, got {kind!r:.80}")
        texts.append(text_at(part, "refusal" if kind == "refusal" else "text", f"{at}[{i}]"))
    return "\n".join(texts)


def tools_of(tools: Sequence[Part]) -> tuple[list[Part], list[str]]:
    """The function tools as those of chats, and the types of the others."""
    functions, others = [], []
    for tool in tools:
        if tool.get("type") == "function":
            function = {key: value for key, value in tool.items() if key != "type" and value is not None}
            functions.append({"type": "function", "function": function})
        else:
            others.append(str(tool.get("type")))
    return functions, others


def choice_of(choice: Any) -> Any:
    """A tool_choice as that of chats."""
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools":
        allowed = [choice_of(tool) for tool in choice.get("tools") or ()]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode", "auto"), "tools": allowed}}
    raise wrong("tool_choice", f"{choice.get('type')!r:.80} is no tool of this server; name a function")
