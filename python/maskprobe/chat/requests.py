"""What a chat request may hold beside its text: messages, tools, and what the answer must look like.

Checks them and makes grammars of them; leaves prompts to formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..grammars.grammar import Grammar

# The keywords of a tool's schema that chat formats of llama-cpp-python honour which make a grammar of it themselves.
_HONOURED = {"type", "properties", "required", "items", "title", "description", "default", "examples"}


def answer_grammar(response_format: object, grammar: Any, tool: Mapping[str, Any] | None) -> Any:
    """What the answer must be in: JSON, the arguments of a tool, or the grammar that was given.

    Raises:
        ValueError, TypeError: the format is none, its schema cannot be enforced, or several of them were given.
    """
    wanted = _format_grammar(response_format)
    given = {"response_format": wanted, "grammar": grammar, "tool_choice": tool}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} exclude each other; give one of them")
    if tool is None:
        return grammar if wanted is None else wanted
    return _schema_grammar(f"tools: the parameters of {tool['name']}", tool.get("parameters") or {"type": "object"})


def _format_grammar(response_format: object) -> Grammar | None:
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        raise TypeError(f"response_format must be a dictionary with a type, got {response_format!r}")
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = response_format.get("schema")
        return _schema_grammar("response_format schema", {"type": "object"} if schema is None else schema)
    if kind == "json_schema":
        named = response_format.get("json_schema")
        if not isinstance(named, Mapping) or named.get("schema") is None:
            raise ValueError("response_format json_schema must hold json_schema.schema, a JSON schema")
        return _schema_grammar("response_format schema", named["schema"])
    raise ValueError(f"response_format must be text, json_object or json_schema, got {kind!r}")


def _schema_grammar(name: str, schema: Any) -> Grammar:
    try:
        return Grammar.from_schema(schema)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {error}") from error


class Tools(NamedTuple):
    """What a chat may call, as requests name it; the older functions and function_call too."""

    tools: list[dict[str, Any]] | None
    tool_choice: Any
    functions: list[dict[str, Any]] | None
    function_call: Any

    def called(self) -> Mapping[str, Any] | None:
        """The function that must be called, None if none must.

        Raises:
            ValueError: it is not among the tools.
        """
        chosen = self.tool_choice if self.function_call is None else {"function": self.function_call}
        name = chosen["function"].get("name") if _is_choice(chosen) else None
        if name is None or not (self.tools or self.functions):
            return None
        for function in self._functions():
            if function["name"] == name:
                return function
        raise ValueError(f"tool_choice names {name!r}, which is not among the tools")

    def check_for_own_grammars(self) -> None:
        """Refuses schemas of which a format that makes grammars itself would lose something.

        Raises:
            ValueError: the keyword.
        """
        for function in self._functions():
            _check_honoured(function["name"], function.get("parameters"))

    def _functions(self) -> list[dict[str, Any]]:
        return [tool["function"] for tool in self.tools or ()] if self.functions is None else self.functions


def _is_choice(chosen: Any) -> bool:
    return isinstance(chosen, Mapping) and isinstance(chosen.get("function"), Mapping)


def _check_honoured(name: str, schema: Any) -> None:
    for keyword in schema if isinstance(schema, Mapping) else ():
        if keyword not in _HONOURED:
            raise ValueError(
                f"{keyword} in the parameters of {name} cannot be enforced by this chat_format; "
                "leave chat_format out for the model's own template"
            )
    if isinstance(schema, Mapping):
        _check_honoured(name, schema.get("items"))
        properties = schema.get("properties")
        for part in properties.values() if isinstance(properties, Mapping) else ():
            _check_honoured(name, part)


def checked_messages(messages: object) -> list[dict[str, Any]]:
    """Messages as a list of dictionaries with a role.

    Raises:
        ValueError, TypeError: they are not; the message says which.
    """
    if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of dictionaries, got {type(messages).__name__}")
    if not messages:
        raise ValueError("messages is empty; give at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{i}] must be a dictionary with a role and a content, got {message!r}")
    return [dict(message) for message in messages]


def checked_tools(tools: object, name: str) -> list[dict[str, Any]] | None:
    """Tools or functions as a list of dictionaries that name a function.

    Raises:
        ValueError, TypeError: they are not; the message says which.
    """
    if tools is None:
        return None
    if isinstance(tools, (str, bytes)) or not isinstance(tools, Sequence):
        raise TypeError(f"{name} must be a list of dictionaries, got {type(tools).__name__}")
    for i, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"{name}[{i}] must be a dictionary that names a function, got {tool!r}")
    return [dict(tool) for tool in tools]
