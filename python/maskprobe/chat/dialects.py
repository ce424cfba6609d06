"""Dialects: how a chat template wants an agent's conversation, which clients all send in OpenAI's form.

Says what there is to choose and changes messages accordingly; leaves the choice to probing. Nothing is left out on the
way: what a template has no place for becomes text in a message that it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, NamedTuple

Message = dict[str, Any]
Messages = list[Message]
Tools = list[dict[str, Any]]

SHORT_ID = 9  # letters and digits, as Mistral's templates ask


class Dialect(NamedTuple):
    """What a template takes. The defaults are what most do.

    Args:
        system: where it takes system messages; elsewhere they become the user's.
        developer: it knows the role of that name; otherwise developers' messages become the system's.
        joined: consecutive messages of one role become one.
        parts: texts are lists of parts.
        tools: they are the variable tools, JSON text in the variable functions, or described in the system message.
        arguments: of calls: objects, objects whose values are all texts, or JSON text.
        empty: the content of a message that is calls alone.
        short_ids: ids are nine letters or digits.
        apart: text beside calls becomes a message of its own.
        one_each: of several calls, each becomes a message, with its result behind it.
        calls: it shows calls; otherwise they become the assistant's text.
        results: it shows results; otherwise they become the user's text.
        reasoning: the key under which it looks for reasoning.
    """

    system: Literal["anywhere", "first", "never"] = "anywhere"
    developer: bool = False
    joined: bool = False
    parts: bool = False
    tools: Literal["variable", "functions", "described"] = "variable"
    arguments: Literal["objects", "flat", "text"] = "objects"
    empty: str | None = ""
    short_ids: bool = False
    apart: bool = False
    one_each: bool = False
    calls: bool = True
    results: bool = True
    reasoning: str = "reasoning_content"


class Translated(NamedTuple):
    """Messages as a template wants them, and the variables that hold the tools."""

    messages: Messages
    variables: dict[str, Any]


def translated(dialect: Dialect, messages: Messages, tools: Tools | None) -> Translated:
    """Messages and tools of a request in a template's dialect.

    Raises:
        ValueError: a call's arguments are no JSON object, and the template wants one.
    """
    variables: dict[str, Any] = {}
    messages = list(_named(_checked(dialect, messages)))
    if tools and dialect.tools == "described":
        messages = _with_system(messages, _described(tools, how=not dialect.calls))
    elif tools and dialect.tools == "functions":
        variables["functions"] = json.dumps([tool.get("function", tool) for tool in tools], ensure_ascii=False)
    elif tools:
        variables["tools"] = tools
    messages = _in_known_roles(dialect, messages)
    if dialect.one_each and dialect.calls:
        messages = list(_one_each(messages))
    messages = [part for message in messages for part in _spoken(dialect, message)]
    if dialect.joined:
        messages = _joined(dialect, messages)
    if dialect.parts:
        messages = [_in_parts(message) for message in messages]
    return Translated(messages, variables)


# --- one message --------------------------------------------------------------------------------------


def _checked(dialect: Dialect, messages: Messages) -> Iterator[Message]:
    """Copies whose texts are texts, with arguments and reasoning as the dialect has them."""
    for i, message in enumerate(messages):
        changed = {key: value for key, value in message.items() if value is not None and (key != "tool_calls" or value)}
        content = message.get("content")
        changed["content"] = "" if content is None else content if dialect.parts else text_of(content)
        if changed.get("reasoning_content") and dialect.reasoning != "reasoning_content":
            changed[dialect.reasoning] = changed.pop("reasoning_content")
        if calls := changed.get("tool_calls"):
            where = f"messages[{i}].tool_calls"
            changed["tool_calls"] = [_checked_call(dialect, call, f"{where}[{k}]") for k, call in enumerate(calls)]
        if dialect.short_ids and isinstance(message.get("tool_call_id"), str):
            changed["tool_call_id"] = _short(message["tool_call_id"])
        yield changed


def text_of(content: Any) -> Any:
    """The text of a content that is parts of text; any other content as it is."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "\n".join(str(part.get("text") or "") for part in content)
    return content


def _checked_call(dialect: Dialect, call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"{where} must hold a function with a name and arguments, got {call!r:.80}")
    arguments = _arguments(dialect, function.get("arguments"), f"{where}.function.arguments")
    changed = {"type": "function", **call, "function": {**function, "arguments": arguments}}
    if dialect.short_ids and isinstance(call.get("id"), str):
        changed["id"] = _short(call["id"])
    return changed


def _arguments(dialect: Dialect, given: Any, where: str) -> Any:
    if dialect.arguments == "text" and dialect.calls:
        return given if isinstance(given, str) else _json(given or {})
    value = given
    if isinstance(given, str):
        try:
            value = json.loads(given) if given.strip() else {}
        except ValueError as error:
            raise ValueError(f"{where} is no JSON: {error}") from error
    if not isinstance(value, Mapping):
        if value is not None:
            raise ValueError(f"{where} must be a JSON object, got {value!r:.80}")
        value = {}
    if dialect.arguments == "flat":
        return {key: item if isinstance(item, str) else _json(item) for key, item in value.items()}
    return dict(value)


def _short(id: str) -> str:
    if len(id) == SHORT_ID and id.isascii() and id.isalnum():
        return id
    return sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:SHORT_ID]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_parts(message: Message) -> Message:
    if not isinstance(message["content"], str):
        return message
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _spoken(dialect: Dialect, message: Message) -> Iterator[Message]:
    """A message's calls and results in the form that the template shows."""
    if message["role"] == "tool" and not dialect.results:
        yield {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    elif "tool_calls" not in message:
        yield message
    elif not dialect.calls:
        rest = {key: value for key, value in message.items() if key != "tool_calls"}
        texts = filter(None, [message["content"], *map(_written, message["tool_calls"])])
        yield {**rest, "content": "\n".join(texts)}
    elif message["content"] and dialect.apart:
        yield {key: value for key, value in message.items() if key != "tool_calls"}
        yield {**message, "content": dialect.empty}
    else:
        yield {**message, "content": message["content"] or dialect.empty}


def _written(call: Mapping[str, Any]) -> str:
    function = call["function"]
    return f"<tool_call>\n{_json({'name': function['name'], 'arguments': function['arguments']})}\n</tool_call>"


# --- several messages ---------------------------------------------------------------------------------


def _named(messages: Iterable[Message]) -> Iterator[Message]:
    """Results with the name of the function, which some templates show and few clients send."""
    names: dict[Any, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call.get("id")] = call["function"]["name"]
        if message["role"] == "tool" and "name" not in message and message.get("tool_call_id") in names:
            message = {**message, "name": names[message["tool_call_id"]]}
        yield message


def _in_known_roles(dialect: Dialect, messages: Messages) -> Messages:
    changed: Messages = []
    for i, message in enumerate(messages):
        role = "system" if message["role"] == "developer" and not dialect.developer else message["role"]
        if role == "system" and (dialect.system == "never" or (dialect.system == "first" and i > 0)):
            role = "user"
        changed.append({**message, "role": role})
    return changed


def _with_system(messages: Messages, text: str) -> Messages:
    """The messages with a text at the end of the first system message."""
    if messages[0]["role"] in ("system", "developer"):
        first = messages[0]
        return [{**first, "content": "\n\n".join(filter(None, [first["content"], text]))}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _described(tools: Tools, *, how: bool) -> str:
    """Tools in words; how: and how to call them, for templates that have no form of their own."""
    text = "You may call these functions, described in JSON:\n<tools>\n" + "\n".join(map(_json, tools)) + "\n</tools>"
    if not how:
        return text
    return (
        f"{text}\nTo call one, write its name and its arguments as JSON between these tags, once per call:\n"
        '<tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call>'
    )


def _one_each(messages: Messages) -> Iterator[Message]:
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls: Sequence[Mapping[str, Any]] = message.get("tool_calls", ())
        if len(calls) < 2:
            yield message
            continue
        results = []
        while rest and rest[0]["role"] == "tool":
            results.append(rest.pop(0))
        for i, call in enumerate(calls):
            yield {**message, "content": message["content"] if i == 0 else "", "tool_calls": [call]}
            yield from (result for result in results if result.get("tool_call_id") == call.get("id"))
        ids = [call.get("id") for call in calls]
        yield from (result for result in results if result.get("tool_call_id") not in ids)


def _joined(dialect: Dialect, messages: Messages) -> Messages:
    joined: Messages = []
    for message in messages:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before["role"] == message["role"] != "tool"
            and "tool_calls" not in before
            and not ("tool_calls" in message and dialect.apart)
            and all(isinstance(one["content"] or "", str) for one in (before, message))
        ):
            texts = filter(None, [before["content"], message["content"]])
            joined[-1] = {**before, **message, "content": "\n\n".join(texts)}
        else:
            joined.append(message)
    return joined
