"""What a chat request may hold beside its text: messages, tools, and what the answer must look like.

Checks them and makes grammars of them; leaves prompts to formats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypedDict

from typing_extensions import Unpack

from ..checking import checked_flag
from ..grammars.grammar import Grammar
from ..grammars.schemas import Schema
from .templates import RESERVED

_OTHER_NAMES = {"enable_thinking": "thinking", "reasoning_effort": "reasoning_strength"}  # of some families
# The keywords of a tool's schema that chat formats of llama-cpp-python honour which make a grammar of it themselves.
_HONOURED = {"type", "properties", "required", "items", "title", "description", "default", "examples"}


def given_grammar(response_format: object, grammar: Any) -> Any:
    """The grammar that an answer without calls must be in, None if there is none.

    Raises:
        ValueError, TypeError: the format is none, its schema cannot be enforced, or both were given.
    """
    schema = answer_schema(response_format)
    if schema is None:
        return grammar
    if grammar is not None:
        raise ValueError("response_format and grammar exclude each other; give one of them")
    return Grammar.from_schema(schema)


def answer_schema(response_format: object) -> Schema | None:
    """The schema of an answer in JSON, None for text.

    Raises:
        ValueError, TypeError: it is no response format, or its schema cannot be enforced.
    """
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        raise TypeError(f"response_format must be a dictionary with a type, got {response_format!r}")
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = response_format.get("schema")
        return _checked_schema({"type": "object"} if schema is None else schema)
    if kind == "json_schema":
        named = response_format.get("json_schema")
        if not isinstance(named, Mapping) or named.get("schema") is None:
            raise ValueError("response_format json_schema must hold json_schema.schema, a JSON schema")
        return _checked_schema(named["schema"])
    raise ValueError(f"response_format must be text, json_object or json_schema, got {kind!r}")


def _checked_schema(schema: Any) -> Schema:
    try:
        Grammar.from_schema(schema)
    except (ValueError, TypeError) as error:
        raise type(error)(f"response_format schema: {error}") from error
    checked: Schema = schema
    return checked


@dataclass(frozen=True)
class Choice:
    """What may be called in an answer: none of the functions, any, or one that must be; once: a single time."""

    functions: list[dict[str, Any]]
    must_call: bool = False
    once: bool = False


class Tools(NamedTuple):
    """What a chat may call, as requests name it; the older functions and function_call too."""

    tools: list[dict[str, Any]] | None
    tool_choice: Any
    functions: list[dict[str, Any]] | None
    function_call: Any

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Tools:
        """Those of create_chat_completion's arguments by name; what is left out is None.

        Raises:
            ValueError, TypeError: a tool or a function is none.
        """
        return cls(
            checked_tools(arguments.get("tools"), "tools"),
            arguments.get("tool_choice"),
            checked_tools(arguments.get("functions"), "functions"),
            arguments.get("function_call"),
        )

    def choice(self) -> Choice:
        """What may be called, and what must.

        Raises:
            ValueError: the choice is none, or names what is not among the tools.
        """
        functions = self._functions()
        older = self.functions is not None or self.function_call is not None
        name = "function_call" if older else "tool_choice"
        chosen = self.function_call if older else self.tool_choice
        if isinstance(chosen, Mapping) and chosen.get("type") == "allowed_tools":
            allowed = chosen.get("allowed_tools")
            if not isinstance(allowed, Mapping) or allowed.get("mode") not in ("auto", "required"):
                raise ValueError(f"{name} allowed_tools must hold a mode, auto or required, and tools")
            names = [_name_in(tool, name) for tool in allowed.get("tools") or ()]
            return self._among(functions, names, name, must_call=allowed["mode"] == "required")
        if isinstance(chosen, Mapping):
            return replace(self._among(functions, [_name_in(chosen, name)], name, must_call=True), once=True)
        if chosen == "required":
            if not functions:
                raise ValueError(f"{name} is required, but there are no tools")
            return Choice(functions, must_call=True)
        if chosen == "none":
            return Choice([])
        if chosen not in (None, "auto"):
            raise ValueError(f"{name} must be none, auto, required, allowed_tools or name a tool, got {chosen!r:.80}")
        return Choice(functions)

    def _among(self, functions: list[dict[str, Any]], names: list[str], what: str, *, must_call: bool) -> Choice:
        for name in names:
            if name not in [function["name"] for function in functions]:
                raise ValueError(f"{what} names {name!r}, which is not among the tools")
        if not names:
            raise ValueError(f"{what} allows no tools; use none")
        return Choice([function for function in functions if function["name"] in names], must_call)

    def all(self) -> list[dict[str, Any]] | None:
        """The tools as OpenAI names them now, None if there are none."""
        if self.functions is None:
            return self.tools or None
        return [{"type": "function", "function": function} for function in self.functions] or None

    def variables(self) -> dict[str, Any]:
        """What templates may be told beside the tools themselves."""
        return {} if self.tool_choice is None else {"tool_choice": self.tool_choice}

    def offered_in(self, chat: Chat) -> Chat:
        """The chat with what its template is told of the tools: nothing where none may be called."""
        if not self.choice().functions:
            return chat
        return replace(chat, tools=self.all(), variables={**chat.variables, **self.variables()})

    def check_for_own_grammars(self) -> None:
        """Refuses schemas of which a format that makes grammars itself would lose something.

        Raises:
            ValueError: the keyword.
        """
        for function in self._functions():
            _check_honoured(function["name"], function.get("parameters"))

    def _functions(self) -> list[dict[str, Any]]:
        if self.functions is not None:
            return self.functions
        return [tool.get("function", tool) for tool in self.tools or ()]


def _name_in(chosen: Any, what: str) -> str:
    """The name of a function: {"function": {"name": ...}}, or as function_call has it, {"name": ...}."""
    function = chosen.get("function", chosen) if isinstance(chosen, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"{what} must name a function, got {chosen!r:.80}")
    return name


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
        try:
            json.dumps(function, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: the parameters of {function['name']}: this is no JSON: {error}") from error
        except RecursionError:
            raise ValueError(f"{name}: the parameters of {function['name']}: nested too deeply") from None
    return [dict(tool) for tool in tools]


@dataclass(frozen=True)
class Chat:
    """What a prompt is made of.

    Args:
        messages: see :func:`checked_messages`.
        tools: that the model may call, None = none.
        variables: of the template, beside messages and tools.
        add_generation_prompt: end with what begins an answer.
        continued: end within the last message instead, which is the assistant's.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continued: bool = False

    def is_agents(self) -> bool:
        """Whether there are tools, calls or results."""
        return bool(self.tools) or any(m.get("tool_calls") or m["role"] == "tool" for m in self.messages)


class PromptOptions(TypedDict, total=False):
    """What a caller may say of a chat's prompt."""

    chat_template_kwargs: Mapping[str, Any] | None
    reasoning_effort: str | None
    add_generation_prompt: bool
    continue_final_message: bool | None


def checked_chat(messages: object, tools: object = None, **options: Unpack[PromptOptions]) -> Chat:
    """A chat of what a caller gives; see :meth:`maskprobe.loaded.LoadedModel.apply_chat_template`.

    Raises:
        ValueError, TypeError: something is wrong; the message says what.
    """
    chat = checked_messages(messages)
    last = chat[-1]
    can_continue = last["role"] == "assistant" and not last.get("tool_calls")
    generation = checked_flag("add_generation_prompt", options.get("add_generation_prompt", True))
    continued = can_continue and generation
    if (asked := options.get("continue_final_message")) is not None:
        continued = checked_flag("continue_final_message", asked)
    if continued and not can_continue:
        raise ValueError("continue_final_message needs a last message of the assistant's without tool_calls")
    variables = template_variables(options.get("chat_template_kwargs"), options.get("reasoning_effort"))
    return Chat(chat, checked_tools(tools, "tools") or None, variables, generation, continued)


def template_variables(given: object, reasoning_effort: object) -> dict[str, Any]:
    """The variables of a template that a request sets; templates take those that they know.

    Raises:
        ValueError, TypeError: a name is taken, or no name.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"chat_template_kwargs must map names to values, got {given!r:.80}")
    variables = dict(given or {})
    for name in variables:
        if not isinstance(name, str) or name in RESERVED:
            raise ValueError(f"chat_template_kwargs cannot set {name!r}; the request's own fields say it")
    if reasoning_effort is not None:
        if not isinstance(reasoning_effort, str):
            raise TypeError(f"reasoning_effort must be a word such as low, got {reasoning_effort!r:.80}")
        effort = {"enable_thinking": False} if reasoning_effort == "none" else {"reasoning_effort": reasoning_effort}
        variables = effort | variables
    same = {other: variables[name] for name, other in _OTHER_NAMES.items() if name in variables}
    return same | variables
