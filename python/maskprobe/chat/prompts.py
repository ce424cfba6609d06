"""Prompts as token ids: what texts, ids and messages become before a generation, each checked against the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..checking import checked_flag, checked_integer
from ..errors import ContextError
from ..llamacpp.model import Model
from .control_tokens import AsText, ControlTokens, Messages

Prompt = str | Sequence[int]


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

    def of_messages(self, messages: Messages, render: Callable[[Messages], str], *, parse_special: bool) -> list[int]:
        """The token ids of the text that render makes of messages.

        Args:
            parse_special: parse control tokens that messages spell, which are text otherwise.
        """
        asked = AsText(messages, {})
        if not checked_flag("parse_special", parse_special):
            asked = self.control_tokens.as_text(messages, render)
        text = render(asked.messages)
        if asked.characters:
            return self.control_tokens.tokenize(text, asked.characters, add_bos=True)
        return self.tokenize(text)

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
