"""A loaded model: its life, what it says of itself, its tokens and its KV cache. Generation is made on top of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, overload

from typing_extensions import Self, Unpack

from .chat.control_tokens import ControlTokens
from .chat.formats import ChatFormats
from .chat.prompts import Prompt, Prompts
from .chat.requests import checked_chat
from .checking import checked_flag
from .generation import state
from .generation.engine import Engine
from .generation.lifetime import Lifetime
from .generation.request import Options
from .grammars.grammar import Grammar
from .replies import Format, find_format
from .results import Chunk, Drafting


class LoadedModel(ABC):
    """What a MaskProbeLlama can do besides generating."""

    _lifetime: Lifetime
    metadata: Mapping[str, str]
    chat_formats: ChatFormats
    control_tokens: ControlTokens

    @abstractmethod
    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Iterator[Chunk]:
        """Generates a completion, one chunk per committed token."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuses copies and pickles, which ask here: a model is memory and threads of this process."""
        raise TypeError(
            f"a loaded model cannot be copied or pickled, got {self.model_path.name}; use the same object, or load "
            f"{self.model_path} anew where another one is needed"
        )

    def close(self) -> None:
        """Frees the model and its context; closing twice is fine, and does nothing in a fork of the process.

        Raises:
            BusyError: a generation is running.
        """
        self._lifetime.close()

    # --- the model ------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The model's session and what is known of it; for tools that find out more.

        Raises:
            ClosedError, ForkError: the model was closed, or loaded by another process.
        """
        return self._lifetime.engine

    @property
    def model_path(self) -> Path:
        """The file that was loaded."""
        return self._lifetime.loaded.model.path

    @property
    def drafting(self) -> Drafting:
        """How answers can be drafted, and why not more."""
        return self._lifetime.loaded.drafting

    @property
    def n_gpu_layers(self) -> int:
        """Layers asked for on the GPU."""
        return self._lifetime.loaded.model.options.n_gpu_layers

    @property
    def rpc_servers(self) -> Sequence[str]:
        """The RPC servers that take part."""
        return self._lifetime.loaded.model.options.rpc_servers

    @property
    def n_parallel(self) -> int:
        """Generations that may run at once."""
        return self._lifetime.loaded.model.options.n_parallel

    def n_threads(self) -> int:
        """Threads of all decoding."""
        return self.engine.model.n_threads()

    def n_ctx(self) -> int:
        """Context length in tokens."""
        return self.engine.model.n_ctx()

    def description(self) -> str:
        """Architecture, size and quantization in words, e.g. "llama ?B Q4_0"."""
        return self.engine.model.description()

    def reset(self, *, learned: bool = False) -> None:
        """Forgets the KV cache: the next generation decodes its whole prompt.

        Args:
            learned: forget what earlier generations have taught the drafts as well.
        """
        with self._lifetime.use() as engine:
            engine.reset(learned=learned)

    def save_state(self, path: str | PathLike[str]) -> int:
        """Writes the KV cache with its tokens to a file, for :meth:`load_state` of this or another object.

        Returns the number of tokens. What drafts have learned is not part of it.

        Raises:
            StateError: there is nothing to save yet.
            OSError: the file cannot be written.
        """
        with self._lifetime.use() as engine:
            return state.save(engine, Path(path))

    def load_state(self, path: str | PathLike[str]) -> int:
        """Puts a saved KV cache in place of the present one: prompts that begin with its tokens reuse them.

        The model, its adapter, rope and KV cache types must be those of the object that saved it. Returns the number
        of tokens. Load no file from strangers: llama.cpp trusts the values in it.

        Raises:
            StateError: the file is missing, damaged, or does not fit; the object stays usable.
        """
        with self._lifetime.use() as engine:
            return state.load(engine, Path(path))

    # --- tokens ---------------------------------------------------------------------------------------

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
        return self.prompts.tokenize(text, add_bos=add_bos, special=special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of token ids. special: show special tokens as text."""
        prompts = self.prompts
        return prompts.model.vocab.detokenize(prompts.checked_ids(tokens), special).decode("utf-8", "replace")

    def has_chat_template(self) -> bool:
        """Whether there is a chat template: the model's, or one that was given."""
        return self.chat_formats.template() is not None

    @cached_property
    def reply_format(self) -> Format:
        """How the model writes reasoning and calls, as far as its chat template tells."""
        return find_format(self.chat_formats.template(tools=True))

    @cached_property
    def reply_grammars(self) -> dict[str, Grammar | None]:
        """Grammars that were made for chats."""
        return {}

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        tokenize: Literal[True] = True,
        parse_special: bool = False,
    ) -> list[int]: ...

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        tokenize: Literal[False],
        parse_special: bool = False,
    ) -> str: ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool | None = None,
        tokenize: bool = True,
        parse_special: bool = False,
    ) -> list[int] | str:
        """The prompt with which the model answers messages, as token ids or as text.

        Args:
            messages: dictionaries with a role and a content, and calls and their results in OpenAI's form.
            tools: that the model may call, in OpenAI's form.
            chat_template_kwargs: variables of the template, ``{"enable_thinking": False}`` say. Templates take those
                that they know.
            reasoning_effort: one of the words that the template knows, or ``"none"`` for ``enable_thinking=False``.
            add_generation_prompt: end with what begins an answer.
            continue_final_message: end within the last message, the assistant's, which the model then continues;
                None = if there is one, and an answer is asked for.
            tokenize: give token ids rather than text; in text, control tokens and what merely spells one look alike.
            parse_special: parse control tokens that messages and tools spell, which are text otherwise.

        Raises:
            ModelError: there is no chat template, or one that does not end.
            ValueError, TypeError: an argument is out of range, or the template refuses the messages.
        """
        chat = checked_chat(
            messages,
            tools,
            chat_template_kwargs=chat_template_kwargs,
            reasoning_effort=reasoning_effort,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        prompt = self.prompts.of_chat(self.chat_formats, chat, parse_special=parse_special)
        return prompt.ids if checked_flag("tokenize", tokenize) else prompt.text

    @property
    def prompts(self) -> Prompts:
        """Makes token ids of prompts, as generations take them."""
        return Prompts(self.engine.model, self.control_tokens)
