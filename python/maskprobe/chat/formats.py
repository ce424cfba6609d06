"""Chats: the prompt that a model's chat format makes of messages, and what the answer must look like.

Templates are rendered by llama-cpp-python; leaves answers as dictionaries to chat_answers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..errors import ModelError
from ..grammars.grammar import Grammar
from .handlers import Handler, read_prompt
from .time_limit import within

TEMPLATE_SECONDS = 5.0  # thousands of messages take a fraction of one

Messages = list[dict[str, Any]]
_NEEDS_TOKENIZER = ("functionary-v1", "functionary-v2")
# They ask the model several times, with grammars that llama-cpp-python makes of a tool's schema. These are the keywords
# that it honours.
_OWN_GRAMMARS = ("functionary", "chatml-function-calling")
_HONOURED = {"type", "properties", "required", "items", "title", "description", "default", "examples"}


class Formatted(NamedTuple):
    """A prompt as text, and the strings that end the answer to it."""

    text: str
    stop: list[str]


class ChatFormats:
    """The chat formats of a model: its own templates, llama-cpp-python's by name, or a handler of the user's.

    Raises:
        ValueError: the format is unknown, or the handler needs more than text.
    """

    def __init__(
        self, model: str, metadata: Mapping[str, str], bos: str, eos: str, name: str | None, handler: Handler | None
    ) -> None:
        from llama_cpp import llama_chat_format as formats

        if handler is not None and (not callable(handler) or hasattr(handler, "clip_model_path")):
            raise ValueError(f"chat_handler {type(handler).__name__} is no handler of text chats; leave it out")
        templates = {
            key.removeprefix("tokenizer."): template
            for key, template in metadata.items()
            if key.startswith("tokenizer.chat_template.")
        }
        if "tokenizer.chat_template" in metadata:
            templates["chat_template.default"] = metadata["tokenizer.chat_template"]
        self._model = model
        self._templates = templates
        self._formatters: dict[str, Handler] = {}
        self._special = (bos, eos)
        self._handler = handler
        self._name = name or ("chat_template.default" if "chat_template.default" in templates else None)
        if name in _NEEDS_TOKENIZER:
            raise ValueError(f"chat_format {name!r} needs a tokenizer of transformers; leave it out")
        if name is not None and name not in templates:
            try:
                registered: Handler = formats.get_chat_completion_handler(name)
            except formats.LlamaChatCompletionHandlerNotFoundException as error:
                raise ValueError(f"unknown chat_format {name!r}; leave it out for the model's own template") from error
            if name in _OWN_GRAMMARS:
                self._handler = handler or registered
            self._formatters[name] = lambda messages, **_: read_prompt(registered, metadata, messages=messages)

    def handler(self) -> Handler | None:
        """The handler that makes answers itself, None where :meth:`format` makes the prompt of the only question."""
        return self._handler

    def format(self, messages: Messages, **arguments: Any) -> Formatted:
        """The prompt that the format makes of messages.

        Args:
            arguments: what templates know beside: tools, tool_choice, functions and function_call.

        Raises:
            ModelError: the model has no template and no format was named, or one that does not end.
            ValueError: the template refuses the messages.
        """
        if self._name is None:
            raise ModelError(f"{self._model} has no chat template; name a chat_format or give the prompt as text")
        return self._format(self._name, messages, **arguments)

    def render(self, messages: Messages) -> str:
        """The prompt that the model's own template makes of messages.

        Raises:
            ModelError, ValueError: as :meth:`format` raises them.
        """
        if "chat_template.default" not in self._templates:
            raise ModelError(f"{self._model} has no chat template; give the prompt as text")
        return self._format("chat_template.default", messages).text

    def _format(self, name: str, messages: Messages, **arguments: Any) -> Formatted:
        if name not in self._formatters:
            self._formatters[name] = self._compiled(self._templates[name])
        answer = self._run(partial(self._formatters[name], messages=messages, **arguments))
        return Formatted(answer.text, answer.stop)

    def _compiled(self, template: str) -> Handler:
        from llama_cpp import llama_chat_format as formats

        bos, eos = self._special
        formatter = self._run(partial(formats.Jinja2ChatFormatter, template, bos_token=bos, eos_token=eos))

        def format(**arguments: Any) -> Formatted:
            return Formatted(str(formatter(**arguments).prompt), [eos] if eos else [])

        return format

    def _run(self, call: Callable[[], Any]) -> Any:
        """A template is the model file's program: whatever it raises is about the messages or the template."""
        try:
            return within(TEMPLATE_SECONDS, call)
        except TimeoutError as error:
            raise ModelError(
                f"{self._model} has a chat template that does not end ({TEMPLATE_SECONDS:g} s were given); "
                "give the prompt as text, or name a chat_format for create_chat_completion"
            ) from error
        except Exception as error:
            raise ValueError(f"the chat template cannot render these messages: {error}") from error


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
