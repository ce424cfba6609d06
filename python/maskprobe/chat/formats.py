"""The prompt that a model's chat format makes of messages. Templates are rendered by llama-cpp-python.

Knows formats and templates; leaves what a request may hold to requests, and token ids to prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import ModelError
from .handlers import Formatted, Handler, read_prompt
from .time_limit import within

TEMPLATE_SECONDS = 5.0  # thousands of messages take a fraction of one

Messages = list[dict[str, Any]]
_NEEDS_TOKENIZER = ("functionary-v1", "functionary-v2")
# They ask the model several times, with grammars that llama-cpp-python makes of a tool's schema.
_OWN_GRAMMARS = ("functionary", "chatml-function-calling")


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
