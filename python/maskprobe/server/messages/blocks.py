"""Content blocks and tools of the Messages API as those of a chat. Raises what is wrong with a block by its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..translation import text_at, wrong
from ..worker import Part

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_messages(messages: Sequence[Part]) -> list[Part]:
    """The messages of a chat. Results of tools, which the user's message brings, are messages of their own."""
    found: list[Part] = []
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise wrong(f"{at}.role", f"must be user or assistant, got {role!r:.80}")
        if isinstance(content, str):
            found.append({"role": role, "content": content})
        elif role == "assistant":
            found.append(_said(_blocks(content, f"{at}.content")))
        else:
            found += _asked(role, _blocks(content, f"{at}.content"))
    return found


def text_of(content: Any, at: str) -> str:
    """The text of a text or of text blocks."""
    if isinstance(content, str):
        return content
    blocks = _blocks(content, at)
    return "\n".join(text_at(block, "text", place) for place, block in blocks if _is(block, place, "text"))


def _blocks(content: Any, at: str) -> list[tuple[str, Part]]:
    """The blocks with their places."""
    if not isinstance(content, list):
        raise wrong(at, f"must be a text or a list of blocks, got {content!r:.80}")
    blocks = [(f"{at}[{i}]", block) for i, block in enumerate(content)]
    for place, block in blocks:
        if not isinstance(block, dict):
            raise wrong(place, f"must be a block with a type, got {block!r:.80}")
    return blocks


def _asked(role: str, blocks: list[tuple[str, Part]]) -> list[Part]:
    found: list[Part] = []
    texts = []
    for place, block in blocks:
        if block.get("type") == "tool_result" and role == "user":
            content = text_of(block.get("content") or "", f"{place}.content")
            call_id = text_at(block, "tool_use_id", place)
            found.append({"role": "tool", "tool_call_id": call_id, "content": content})
        elif _is(block, place, "text", "tool_result"):
            texts.append(text_at(block, "text", place))
    if texts or not found:
        found.append({"role": role, "content": "\n".join(texts)})
    return found


def _said(blocks: list[tuple[str, Part]]) -> Part:
    texts, thoughts, calls = [], [], []
    for place, block in blocks:
        kind = block.get("type")
        if kind == "thinking":
            thoughts.append(text_at(block, "thinking", place))
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            function = {"name": text_at(block, "name", place), "arguments": arguments}
            calls.append({"id": text_at(block, "id", place), "type": "function", "function": function})
        elif kind != "redacted_thinking" and _is(block, place, "text", "thinking", "tool_use"):
            texts.append(text_at(block, "text", place))
    message: Part = {"role": "assistant", "content": "\n".join(texts) if texts else None}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _is(block: Part, place: str, *kinds: str) -> bool:
    """Whether a block is of the first kind; kinds: all that may be there."""
    if block.get("type") != kinds[0]:
        raise wrong(f"{place}.type", f"must be {' or '.join(kinds)}, got {block.get('type')!r:.80}")
    return True


def chat_tools(tools: Sequence[Part]) -> tuple[list[Part], list[str]]:
    """The tools with a schema as those of chats, and the types of the others, which are Anthropic's own."""
    functions, others = [], []
    for i, tool in enumerate(tools):
        if tool.get("type") not in (None, "custom"):
            others.append(str(tool["type"]))
            continue
        function = {"name": text_at(tool, "name", f"tools[{i}]"), "parameters": tool.get("input_schema")}
        if tool.get("description") is not None:
            function["description"] = tool["description"]
        functions.append({"type": "function", "function": function})
    return functions, others


def chat_choice(choice: Part) -> Any:
    """A tool_choice as that of chats."""
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": text_at(choice, "name", "tool_choice")}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise wrong("tool_choice.type", f"must be auto, any, tool or none, got {kind!r:.80}")
    return _CHOICES[kind]
