"""The prompt that a model's chat format makes of a chat: its own template, another one, or llama-cpp-python's by name.

Knows formats and when they are asked in which dialect; leaves what a request may hold to requests, and token ids to
prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ..errors import ModelError
from .dialects import Messages
from .handlers import Formatted, Handler, read_prompt
from .rendering import Rendering
from .requests import Chat
from .templates import Template
from .time_limit import within

TEMPLATE_SECONDS = 5.0  # thousands of messages take a fraction of one

T = TypeVar("T")
_DEFAULT, _TOOL_USE = "chat_template.default", "chat_template.tool_use"
_NEEDS_TOKENIZER = ("functionary-v1", "functionary-v2")
# They ask the model several times, with grammars that llama-cpp-python makes of a tool's schema.
_OWN_GRAMMARS = ("functionary", "chatml-function-calling")


class ChatFormats:
    """The chat formats of a model: its own templates, one of the user's, llama-cpp-python's by name, or a handler.

    Args:
        model: its name, for messages.
        metadata: of the model file.
        bos, eos: what templates call bos_token and eos_token.
        name: of a format; None = the model's own template.
        handler: in place of a format.
        template: the text of a template in place of the model's own.

    Raises:
        ValueError: the format is unknown, the template is none, or the handler needs more than text.
    """

    def __init__(
        self,
        model: str,
        metadata: Mapping[str, str],
        bos: str,
        eos: str,
        name: str | None,
        handler: Handler | None,
        template: str | None = None,
    ) -> None:
        if handler is not None and (not callable(handler) or hasattr(handler, "clip_model_path")):
            raise ValueError(f"chat_handler {type(handler).__name__} is no handler of text chats; leave it out")
        if template is not None and name is not None:
            raise ValueError("chat_format and chat_template exclude each other; give one of them")
        self._model = model
        self._templates = _templates(metadata) if template is None else {_DEFAULT: template}
        self._renderings: dict[str, Rendering] = {}
        self._special = (bos, eos)
        self._handler = handler
        self._name = name or (_DEFAULT if _DEFAULT in self._templates else None)
        if template is not None:
            self._renderings[_DEFAULT] = self._given(template)
        if name is not None and name not in self._templates:
            registered = _registered(name)
            if name in _OWN_GRAMMARS:
                self._handler = handler or registered

            def render(messages: Messages, **_: Any) -> Formatted:
                return read_prompt(registered, metadata, messages=messages)

            self._renderings[name] = Rendering(render, self._run)

    def handler(self) -> Handler | None:
        """The handler that makes answers itself, None where :meth:`rendering` makes the prompt of the only question."""
        return self._handler

    def template(self, *, tools: bool = False) -> str | None:
        """The text of the template that renders chats, with tools or without; None where another format does."""
        return self._templates.get(self._chosen(tools) or "")

    def rendering(self, chat: Chat) -> Rendering:
        """What makes the prompt of a chat.

        Raises:
            ModelError: the model has no template and no format was named, or its template does not end.
            ValueError: its template is none.
        """
        name = self._chosen(chat.is_agents())
        if name is None:
            raise ModelError(
                f"{self._model} has no chat template; name a chat_format, give a chat_template or the prompt as text"
            )
        if name not in self._renderings:
            self._renderings[name] = self._compiled(self._templates[name])
        return self._renderings[name]

    def _chosen(self, agents: bool) -> str | None:
        """The format of a chat: the template for tools where the model has one and nothing else was asked for."""
        return _TOOL_USE if agents and self._name == _DEFAULT and _TOOL_USE in self._templates else self._name

    def _given(self, text: str) -> Rendering:
        """A template of the caller's, whose mistakes he hears of at once."""
        if not isinstance(text, str) or not text:
            raise TypeError(f"chat_template must be the text of a template, got {text!r:.80}")
        try:
            return self._compiled(text)
        except ValueError as error:
            raise ValueError(f"chat_template is no Jinja template: {error.__cause__}") from error

    def _compiled(self, text: str) -> Rendering:
        bos, eos = self._special
        template = self._run(partial(Template, text, bos, eos))

        def render(**variables: Any) -> Formatted:
            return Formatted(template.render(**variables), [eos] if eos else [])

        return Rendering(render, self._run)

    def _run(self, call: Callable[[], T]) -> T:
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


def _templates(metadata: Mapping[str, str]) -> dict[str, str]:
    """The templates of a model file by llama-cpp-python's names for them."""
    found = {
        key.removeprefix("tokenizer."): template
        for key, template in metadata.items()
        if key.startswith("tokenizer.chat_template.")
    }
    if "tokenizer.chat_template" in metadata:
        found[_DEFAULT] = metadata["tokenizer.chat_template"]
    return found


def _registered(name: str) -> Handler:
    """llama-cpp-python's format of that name."""
    from llama_cpp import llama_chat_format as formats

    if name in _NEEDS_TOKENIZER:
        raise ValueError(f"chat_format {name!r} needs a tokenizer of transformers; leave it out")
    try:
        handler: Handler = formats.get_chat_completion_handler(name)
    except formats.LlamaChatCompletionHandlerNotFoundException as error:
        raise ValueError(f"unknown chat_format {name!r}; leave it out for the model's own template") from error
    return handler
