"""Chats by llama-cpp-python's own chat formats: templates, tools and response formats are its work.

Its handlers are written for a llama_cpp.Llama; what they need of one is here, over a MaskProbeLlama.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from . import grammars
from .control_tokens import ControlTokens
from .errors import ModelError
from .time_limit import within

TEMPLATE_SECONDS = 5.0  # thousands of messages take a fraction of one

Handler = Callable[..., Any]
_NEEDS_TOKENIZER = ("functionary-v1", "functionary-v2")


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
        self._name = name
        if name is None and "chat_template.default" in templates:
            self._name = formats.guess_chat_format_from_gguf_metadata(dict(metadata)) or "chat_template.default"
        if name in _NEEDS_TOKENIZER:
            raise ValueError(f"chat_format {name!r} needs a tokenizer of transformers; leave it out")
        if name is not None and name not in templates:
            try:
                formats.get_chat_completion_handler(name)
            except formats.LlamaChatCompletionHandlerNotFoundException as error:
                raise ValueError(f"unknown chat_format {name!r}; leave it out for the model's own template") from error

    def handler(self) -> Handler:
        """The handler that answers messages.

        Raises:
            ModelError: the model has no template and no format was named.
        """
        from llama_cpp import llama_chat_format as formats

        if self._handler is not None:
            return self._handler
        if self._name is None:
            raise ModelError(f"{self._model} has no chat template; name a chat_format or give the prompt as text")
        template = self._templates.get(self._name)
        if template is None:
            handler: Handler = formats.get_chat_completion_handler(self._name)
            return handler
        own: Handler = formats.chat_formatter_to_chat_completion_handler(self._formatter(self._name))
        return own

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt that the model's own template makes of messages.

        Raises:
            ModelError: the model has no template, or one that does not end.
            ValueError: the template refuses the messages.
        """
        if "chat_template.default" not in self._templates:
            raise ModelError(f"{self._model} has no chat template; give the prompt as text")
        return str(self._formatter("chat_template.default")(messages=checked_messages(messages)).prompt)

    def _formatter(self, name: str) -> Any:
        """A formatter by a template of the model, compiled once."""
        from llama_cpp import llama_chat_format as formats

        if name not in self._formatters:
            bos, eos = self._special
            template = self._templates[name]
            formatter = self._run(partial(formats.Jinja2ChatFormatter, template, bos_token=bos, eos_token=eos))
            self._formatters[name] = lambda **arguments: self._run(partial(formatter, **arguments))
        return self._formatters[name]

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


class ChatModel:
    """What chat handlers use of a llama_cpp.Llama. Remembers the last completion's last dictionary."""

    def __init__(self, llm: Any, extras: dict[str, Any]) -> None:
        self._llm = llm
        self._extras = extras
        self.stand_ins: dict[int, str] = {}  # in prompts; see control_tokens
        self.verbose = False
        self.metadata = llm.metadata
        self.last: dict[str, Any] = {}

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        if self.stand_ins:
            return self._tokenize_text(text.decode("utf-8", "surrogatepass"), add_bos)
        return list(self._llm.tokenize(text, add_bos, special))

    def _tokenize_text(self, prompt: str, add_bos: bool) -> list[int]:
        controls: ControlTokens = self._llm.control_tokens
        return controls.tokenize(prompt, self.stand_ins, add_bos=add_bos)

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        return str(self._llm.detokenize(tokens, special)).encode()

    def token_bos(self) -> int:
        return int(self._llm.token_bos())

    def token_eos(self) -> int:
        return int(self._llm.token_eos())

    def n_ctx(self) -> int:
        return int(self._llm.n_ctx())

    def create_completion(self, prompt: Any, **options: Any) -> Any:
        # A formatter's own criterion stops at the end token, which generations do anyway; its stop string is the
        # end token's text, which some models lack.
        options.pop("stopping_criteria", None)
        options["stop"] = [stop for stop in options.get("stop") or () if stop]
        if self.stand_ins and isinstance(prompt, str):
            prompt = self._tokenize_text(prompt, add_bos=True)
        answer = self._llm.create_completion(prompt, **options, **self._extras)
        if options.get("stream"):
            return self._remembering(answer)
        self.last = answer
        return answer

    def _remembering(self, parts: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for part in parts:
            self.last = part
            yield part


class _Rendered(BaseException):
    """Carries a prompt out of a handler, which must not catch it."""


class _PromptReader(ChatModel):
    """Ends a handler at its first prompt."""

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        raise _Rendered(text.decode("utf-8", "surrogatepass"))

    def create_completion(self, prompt: Any, **options: Any) -> Any:
        raise _Rendered(prompt if isinstance(prompt, str) else "")


def with_messages_as_text(handler: Handler, llm: Any) -> Handler:
    """The handler, for messages in which control tokens are text."""

    def answer(*, llama: ChatModel, messages: list[dict[str, Any]], **options: Any) -> Any:
        def render(messages: list[dict[str, Any]]) -> str:
            try:
                handler(llama=_PromptReader(llm, {}), messages=messages, **(options | {"stream": False}))
            except _Rendered as rendered:
                return str(rendered)
            return ""  # a handler that asks for nothing

        controls: ControlTokens = llm.control_tokens
        messages, llama.stand_ins = controls.as_text(messages, render)
        return handler(llama=llama, messages=messages, **options)

    return answer


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


def with_schema(response_format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """OpenAI's json_schema format as llama-cpp-python's json_object with a schema.

    Raises:
        ValueError, TypeError: it is neither.
    """
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        raise TypeError(f"response_format must be a dictionary with a type, got {response_format!r}")
    kind = response_format.get("type")
    if kind == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema")
        if not isinstance(schema, Mapping):
            raise ValueError("response_format json_schema must hold json_schema.schema, a JSON schema")
        return {"type": "json_object", "schema": _checked_schema("response_format schema", schema)}
    if kind not in ("text", "json_object"):
        raise ValueError(f"response_format must be text, json_object or json_schema, got {kind!r}")
    if isinstance(schema := response_format.get("schema"), Mapping):
        _checked_schema("response_format schema", schema)
    return dict(response_format)


def checked_tools(tools: object, name: str) -> list[dict[str, Any]] | None:
    """Tools or functions as a list of dictionaries, with parameters that a grammar can enforce.

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
        if isinstance(parameters := function.get("parameters"), Mapping):
            _checked_schema(f"{name}[{i}]: the schema of its parameters", parameters)
    return [dict(tool) for tool in tools]


def _checked_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return grammars.checked_schema(dict(schema))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def stream_chat(parts: Iterator[dict[str, Any]], model: ChatModel) -> Iterator[dict[str, Any]]:
    """A streamed chat; its last chunk gets the usage and the timings of the completion behind it."""
    before: dict[str, Any] | None = None
    for part in parts:
        if before is not None:
            yield before
        # The handlers pass chunks on one by one: the last one is known by its finish reason, not by waiting.
        if part["choices"] and part["choices"][0]["finish_reason"] is not None:
            before = part
        else:
            before = None
            yield part
    if before is not None:
        yield before | {key: model.last[key] for key in ("usage", "timings") if key in model.last}
