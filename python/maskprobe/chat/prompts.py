"""The methods of MaskProbeLlama that turn text and messages into tokens, and tokens into text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..checking import checked_flag, checked_integer
from ..errors import ContextError
from ..generation.lifetime import Lifetime
from .control_tokens import AsText, ControlTokens
from .formats import ChatFormats, checked_messages

Prompt = str | Sequence[int]


class TokenMethods(Lifetime):
    """tokenize, detokenize and the like, over an open model."""

    chat_formats: ChatFormats
    control_tokens: ControlTokens

    def n_ctx(self) -> int:
        """Context length in tokens."""
        return self.engine.model.n_ctx()

    def n_vocab(self) -> int:
        """Vocabulary size in tokens."""
        return self.engine.model.n_vocab

    def token_bos(self) -> int:
        """The token id of BOS, -1 = the model has none."""
        return self.engine.model.vocab.bos

    def token_eos(self) -> int:
        """The token id of EOS, -1 = the model has none."""
        return self.engine.model.vocab.eos

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token, maybe half a character; control tokens have none unless special."""
        return self.engine.model.vocab.piece(token, special)

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            add_bos: add BOS and the like where the model asks, unless the text begins with it.
            special: parse special tokens.
        """
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return self.engine.model.vocab.tokenize(data, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of token ids. special: show special tokens as text."""
        vocab = self.engine.model.vocab
        return vocab.detokenize(self._checked_ids(tokens), special).decode("utf-8", "replace")

    def has_chat_template(self) -> bool:
        """Whether the model carries a chat template."""
        return self.engine.model.chat_template() is not None

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], *, parse_special: bool = False) -> list[int]:
        """The prompt, as token ids, with which the model answers the messages (role and content each).

        Args:
            parse_special: parse control tokens that messages spell, which are text otherwise.

        Raises:
            ModelError: the model carries no chat template.
            ValueError: the template refuses the messages.
        """
        return self.chat_prompt(checked_messages(messages), self.chat_formats.render, parse_special=parse_special)

    def chat_prompt(
        self, messages: list[dict[str, Any]], render: Callable[[list[dict[str, Any]]], str], *, parse_special: bool
    ) -> list[int]:
        """The token ids of the text that render makes of messages."""
        asked = AsText(messages, {})
        if not checked_flag("parse_special", parse_special):
            asked = self.control_tokens.as_text(messages, render)
        text = render(asked.messages)
        if asked.characters:
            return self.control_tokens.tokenize(text, asked.characters, add_bos=True)
        return self.tokenize(text)

    def completion_prompt(self, prompt: Prompt, suffix: str | None = None) -> list[int]:
        """The token ids that a completion of the prompt, in front of a suffix, starts from.

        Raises:
            ValueError: the model has no fill-in-the-middle tokens, or no BOS to start an empty prompt with.
        """
        model = self.engine.model
        if suffix is not None and suffix != "":
            infill = model.vocab.infill()
            if infill is None:
                raise ValueError(f"suffix needs fill-in-the-middle tokens, which {model.path.name} has not")
            if not isinstance(prompt, str) or not isinstance(suffix, str):
                raise TypeError("with a suffix, prompt and suffix must be text")
            before, behind, middle = infill
            first, last = (self.tokenize(text, add_bos=False, special=False) for text in (prompt, suffix))
            return [before, *first, behind, *last, middle]
        if isinstance(prompt, str) and not prompt and model.vocab.bos >= 0:
            return [model.vocab.bos]
        return self._checked_prompt(prompt)

    def _checked_ids(self, tokens: Sequence[int]) -> list[int]:
        most = self.n_vocab() - 1
        return [checked_integer("token id", token, 0, most) for token in tokens]

    def _checked_prompt(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError("the prompt is bytes; decode it to str, or pass token ids")
        ids = self.tokenize(prompt) if isinstance(prompt, str) else self._checked_ids(prompt)
        if not ids:
            raise ValueError("the prompt is empty; give at least one token")
        n_ctx = self.n_ctx()
        if len(ids) >= n_ctx:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, but n_ctx={n_ctx} must also hold the answer; "
                "shorten it or load the model with a larger n_ctx"
            )
        return ids
