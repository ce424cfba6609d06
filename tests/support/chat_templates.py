"""Small chat templates, an agent's conversation as clients send it, and the prompt that one makes of the other."""

from __future__ import annotations

import json
from typing import Any

from maskprobe.chat.formats import ChatFormats
from maskprobe.chat.requests import checked_chat

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def call(id: str, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(arguments)}}


HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [call("call_abc123", city="Oslo", at={"hour": 12}, now=True)]},
    {"role": "tool", "tool_call_id": "call_abc123", "content": "cold"},
    {"role": "assistant", "content": "It is cold."},
    {"role": "user", "content": "And there?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("call_one", city="Rome"), call("call_two", city="Bonn")],
    },
    {"role": "tool", "tool_call_id": "call_one", "content": "hot"},
    {"role": "tool", "tool_call_id": "call_two", "content": [{"type": "text", "text": "wet"}]},
]

# A template is a head and, for each message, one of these; "c" is a call.
HEAD = "{% if tools is defined %}[{{ tools | length }} tools: {{ tools | tojson }}]{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}<call {{ c.function.name }} HERE>{% endfor %}"
TAIL = "{% if add_generation_prompt %}<assistant>{% endif %}"


def template(call: str = "{{ c.function.arguments | tojson }}", text: str = "{{ m.content }}", before: str = "") -> str:
    shown = "{{ '<' + m.role + '>' }}" + text + CALLS.replace("HERE", call)
    return HEAD + "{% for m in messages %}" + before + shown + "{% endfor %}" + TAIL


def formats_of(template: str, **others: str) -> ChatFormats:
    metadata = {"tokenizer.chat_template": template} | others
    return ChatFormats("model.gguf", metadata, "<s>", "</s>", None, None)


def prompt(formats: ChatFormats | str, messages: Any, tools: Any = None, **options: Any) -> str:
    formats = formats_of(formats) if isinstance(formats, str) else formats
    chat = checked_chat(messages, tools, **options)
    rendering = formats.rendering(chat)
    return rendering.prompt(rendering.translated(chat)).text


def raising(condition: str) -> str:
    return "{% if " + condition + " %}{{ raise_exception('no') }}{% endif %}"
