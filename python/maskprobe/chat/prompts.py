"""Prompts as token ids: what texts, ids and messages become before a generation, each checked against the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..checking import checked_flag, checked_integer
from ..errors import ContextError
from ..llamacpp.model import Model
from .control_tokens import AsText, ControlTokens
from .formats import ChatFormats
from .handlers import Formatted
from .requests import Chat

Prompt = str | Sequence[int]


class ChatPrompt(NamedTuple):
    """A chat as token ids and as text.

    Args:
        stop: the strings that end the answer to it.
        calls_as_hermes: the template has no form for calls, and the model was told in words to write Hermes's.
    """

    ids: list[int]
    text: str
    stop: list[str]
    calls_as_hermes: bool


@dataclass(frozen=True)
class Prompts:
    """Makes prompts for a loaded model."""

    model: Model
    control_tokens: ControlTokens

    def tokenize(self, text: str | bytes, *, add_bos: bool = True, special: bool = True) -> list[int]:
        """The token ids of a text; special: special tokens are parsed."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return self.model.vocab.tokenize(data, add_bos, special)

    def checked_ids(self, tokens: Sequence[int]) -> list[int]:
        """Token ids that the vocabulary has.

        Raises:
            ValueError, TypeError: one is none.
        """
        return [checked_integer("token id", token, 0, self.model.n_vocab - 1) for token in tokens]

    def checked(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt that leaves room for an answer.

        Raises:
            ContextError: it does not.
            ValueError, TypeError: it is empty, or neither text nor token ids.
        """
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError("the prompt is bytes; decode it to str, or pass token ids")
        ids = self.tokenize(prompt) if isinstance(prompt, str) else self.checked_ids(prompt)
        if not ids:
            raise ValueError("the prompt is empty; give at least one token")
        n_ctx = self.model.n_ctx()
        if len(ids) >= n_ctx:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, but n_ctx={n_ctx} must also hold the answer; "
                "shorten it or load the model with a larger n_ctx"
            )
        return ids

    def of_chat(self, formats: ChatFormats, chat: Chat, *, parse_special: bool) -> ChatPrompt:
        """The prompt that a format makes of a chat.

        Args:
            parse_special: parse control tokens that messages, tools and variables spell, which are text otherwise.

        Raises:
            ModelError, ValueError: see :meth:`ChatFormats.rendering` and :class:`Rendering`.
        """
        rendering = formats.rendering(chat)
        hermes = rendering.tells_how_to_call(chat)
        chat = rendering.translated(chat)

        def formatted(values: list[Any]) -> Formatted:
            messages, variables = values
            return rendering.prompt(replace(chat, messages=messages, variables=variables))

        asked = AsText([chat.messages, chat.variables], {})
        if not checked_flag("parse_special", parse_special):
            asked = self.control_tokens.as_text(asked.values, lambda values: formatted(values).text)
        text, stop = formatted(asked.values)
        if asked.characters:
            ids = self.control_tokens.tokenize(text, asked.characters, add_bos=True)
            return ChatPrompt(ids, text.translate(asked.characters), stop, hermes)
        return ChatPrompt(self.tokenize(text), text, stop, hermes)

    def of_completion(self, prompt: Prompt, suffix: str | None = None) -> list[int]:
        """The token ids that a completion of the prompt, in front of a suffix, starts from.

        Raises:
            ValueError: the model has no fill-in-the-middle tokens, or no BOS to start an empty prompt with.
        """
        vocab = self.model.vocab
        if suffix is not None and suffix != "":
            infill = vocab.infill()
            if infill is None:
                raise ValueError(f"suffix needs fill-in-the-middle tokens, which {self.model.path.name} has not")
            if not isinstance(prompt, str) or not isinstance(suffix, str):
                raise TypeError("with a suffix, prompt and suffix must be text")
            before, behind, middle = infill
            first, last = (self.tokenize(text, add_bos=False, special=False) for text in (prompt, suffix))
            return [before, *first, behind, *last, middle]
        if isinstance(prompt, str) and not prompt and vocab.bos >= 0:
            return [vocab.bos]
        return self.checked(prompt)
