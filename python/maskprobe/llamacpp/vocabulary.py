"""A model's tokens: text to ids, and ids to bytes. Knows llama_vocab alone; leaves checks of ids to the caller."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ..errors import ModelError
from .installed import llama_cpp


class Vocabulary:
    """The vocabulary of a loaded model, usable as long as that is, in several threads at once."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.n_tokens = int(llama_cpp.llama_vocab_n_tokens(handle))
        self.bos = int(llama_cpp.llama_vocab_bos(handle))  # -1 = there is none; so is eos
        self.eos = int(llama_cpp.llama_vocab_eos(handle))
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(handle))
        self._pieces: dict[tuple[int, bool], bytes] = {}  # that were asked for: text is read token by token

    def infill(self) -> tuple[int, int, int] | None:
        """The fill-in-the-middle tokens before the prefix, the suffix and the middle, None if there are none."""
        names = ("llama_vocab_fim_pre", "llama_vocab_fim_suf", "llama_vocab_fim_mid")
        before, behind, middle = (int(getattr(llama_cpp, name)(self.handle)) for name in names)
        return (before, behind, middle) if min(before, behind, middle) >= 0 else None

    def infill_files(self) -> tuple[int, int]:
        """The tokens before the names of a project and of a file, in prompts that :meth:`infill` is for; -1 = none."""
        names = ("llama_vocab_fim_rep", "llama_vocab_fim_sep")
        project, file = (int(getattr(llama_cpp, name)(self.handle)) for name in names)
        return project, file

    def ends(self) -> list[int]:
        """The tokens that end a generation."""
        return [token for token in range(self.n_tokens) if self.is_end(token)]

    def is_end(self, token: int) -> bool:
        """Whether a token ends a generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self.handle, token))

    def single_token(self, text: str) -> int | None:
        """The token that a text is, special ones too; None if it is not one."""
        tokens = self.tokenize(text.encode(), False, True)
        return tokens[0] if len(tokens) == 1 else None

    def without_bos(self, text: bytes) -> bytes:
        """A text whose special tokens are parsed, without the BOS at its start where one is added anyway."""
        bos = self.piece(self.bos, special=True) if self.adds_bos and self.bos >= 0 else b""
        return text.removeprefix(bos)

    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids. add_special: BOS and the like where the model asks, once; parse_special: special tokens."""
        if add_special and parse_special:
            text = self.without_bos(text)
        capacity = len(text) + 8
        while True:
            buffer = (llama_cpp.llama_token * capacity)()
            n = llama_cpp.llama_tokenize(self.handle, text, len(text), buffer, capacity, add_special, parse_special)
            if n >= 0:
                return list(buffer[:n])
            if -n <= capacity:
                raise ModelError(f"llama.cpp cannot tokenize the text of {len(text)} bytes")
            capacity = -n

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token; control tokens have none unless special."""
        known = self._pieces.get((token, special))
        if known is None:
            known = self._pieces[token, special] = self._read_piece(token, special)
        return known

    def _read_piece(self, token: int, special: bool, size: int = 64) -> bytes:
        buffer = ctypes.create_string_buffer(size)  # one per call: several threads may read
        n = llama_cpp.llama_token_to_piece(self.handle, token, buffer, size, 0, special)
        return buffer.raw[:n] if n >= 0 else self._read_piece(token, special, -n)

    def special_text(self, token: int) -> str:
        """The text of a special token, empty for -1."""
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def detokenize(self, tokens: Sequence[int], special: bool) -> bytes:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        size = 16 + 8 * len(tokens)
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = llama_cpp.llama_detokenize(self.handle, ids, len(tokens), buffer, size, False, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n
