"""Chat handlers of llama-cpp-python that make answers themselves: the user's own, and formats that ask several times.

They are written for a llama_cpp.Llama; what they need of one is here, over a MaskProbeLlama.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .control_tokens import ControlTokens

Handler = Callable[..., Any]


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


class Formatted(NamedTuple):
    """A prompt as text, and the strings that end the answer to it."""

    text: str
    stop: list[str]


class _FirstPrompt(BaseException):
    """Carries a prompt out of a handler.

    A handler goes on with whatever create_completion returns, so there is no other way to end it; and it may catch an
    Exception. :func:`read_prompt` is the only place that raises and catches it.
    """

    def __init__(self, prompt: Formatted) -> None:
        super().__init__(prompt)
        self.prompt = prompt


class _PromptReader:
    """Stands for the model until a handler asks for its first completion."""

    verbose = False

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.metadata = metadata
        self._text = ""

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        self._text = text.decode("utf-8", "surrogatepass")
        return []

    def create_completion(self, prompt: Any, **options: Any) -> Any:
        stop = [stop for stop in options.get("stop") or () if stop]
        raise _FirstPrompt(Formatted(prompt if isinstance(prompt, str) else self._text, stop))


def read_prompt(handler: Handler, metadata: Mapping[str, str], **arguments: Any) -> Formatted:
    """The first prompt that a handler makes, empty if it asks for nothing."""
    try:
        handler(llama=_PromptReader(metadata), **arguments)
    except _FirstPrompt as first:
        return first.prompt
    return Formatted("", [])


def with_messages_as_text(handler: Handler, llm: Any) -> Handler:
    """The handler, for messages in which control tokens are text."""

    def answer(*, llama: ChatModel, messages: list[dict[str, Any]], **options: Any) -> Any:
        def render(messages: list[dict[str, Any]]) -> str:
            return read_prompt(handler, llm.metadata, messages=messages, **(options | {"stream": False})).text

        controls: ControlTokens = llm.control_tokens
        messages, llama.stand_ins = controls.as_text(messages, render)
        return handler(llama=llama, messages=messages, **options)

    return answer


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
