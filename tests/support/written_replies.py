"""Replies written from the data of a format, and read back as a client would put them together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskprobe.replies import CallArguments, CallBegins, CallEnds, Content, Event, Format, Leftover, Reasoning
from maskprobe.replies.notations import Braced, Calls, JsonObject, JsonPair, NamedJson, Pythonic, Tagged

Arguments = Mapping[str, Any]
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "where": {"type": "object"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}},
]


@dataclass(frozen=True)
class Read:
    """What was in a reply; arguments are JSON texts."""

    content: str
    reasoning: str
    calls: list[tuple[str, str]]
    leftover: str
    ids: list[str | None]


def read(form: Format, pieces: Iterable[str], *, tools: Sequence[Any] | None = TOOLS, prompt_end: str = "") -> Read:
    """Feeds the pieces and puts the events together; every call must have begun, and ended, in order."""
    parser = form.parser(tools, prompt_end)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    events += parser.finish()
    content, reasoning, leftover = (
        "".join(event.text for event in events if isinstance(event, kind)) for kind in (Content, Reasoning, Leftover)
    )
    calls: list[tuple[str, str]] = []
    begun = [event for event in events if isinstance(event, CallBegins)]
    for index, event in enumerate(begun):
        assert event.index == index
        arguments = "".join(e.text for e in events if isinstance(e, CallArguments) and e.index == index)
        assert CallEnds(index) in events
        calls.append((event.name, arguments))
    return Read(content, reasoning, calls, leftover, [event.id for event in begun])


def values(calls: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    """Calls with their arguments read."""
    return [(name, json.loads(arguments)) for name, arguments in calls]


def written(form: Format, made: Sequence[tuple[str, Arguments]]) -> str:
    """These calls as the format's data say that they are written."""
    calls = form.calls[0]
    one = [
        calls.open + _shaped(calls, number, name, arguments) + calls.close
        for number, (name, arguments) in enumerate(made)
    ]
    return calls.begin + calls.between.join(one) + calls.end


def _shaped(calls: Calls, number: int, name: str, arguments: Arguments) -> str:
    match shape := calls.shape:
        case JsonObject():
            return json.dumps({shape.name[0]: name, shape.arguments[0]: arguments}, ensure_ascii=False)
        case JsonPair():
            return json.dumps({name: arguments}, ensure_ascii=False)
        case NamedJson():
            number_text = f":{number}" if shape.numbered else ""
            return f"{shape.prefix}{name}{number_text}{shape.then}{json.dumps(arguments, ensure_ascii=False)}"
        case Tagged():
            return _tagged(shape, number, name, arguments)
        case Pythonic():
            return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        case Braced():
            return name + _braced(arguments, shape.quote)


def _tagged(shape: Tagged, number: int, name: str, arguments: Arguments) -> str:
    text = shape.name[0] + name + shape.name[1].replace("{n}", str(number + 1))
    for key, value in arguments.items():
        bare = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        starts = {kind: start for start, kind in reversed(shape.values)}
        start = starts.get("schema") or starts["text" if isinstance(value, str) else "json"]
        text += shape.key + key + start + bare + shape.value_end
    return text + shape.end


def _braced(value: Any, quote: str) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_braced(held, quote)}" for key, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_braced(held, quote) for held in value) + "]"
    return quote + value + quote if isinstance(value, str) else json.dumps(value)
