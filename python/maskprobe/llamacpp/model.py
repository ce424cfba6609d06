"""A GGUF model and its context, made through llama_cpp's own structs, and what the model can do.

Knows llama.cpp's handles and architectures; leaves options to loading, files to preflight, generation to the session.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from ..errors import ModelError
from . import snapshots
from .installed import llama_cpp
from .logs import captured_log, reason
from .options import LoadOptions
from .preflight import check_file, check_model
from .rpc import RpcDevices
from .vocabulary import Vocabulary

# ggml types that a KV cache can have, and the elements in a block of each: F32, F16, BF16, then Q4_0, Q4_1, Q5_0, Q5_1,
# Q8_0 and IQ4_NL.
_KV_TYPES = {0: 1, 1: 1, 30: 1, 2: 32, 3: 32, 6: 32, 7: 32, 8: 32, 20: 32}


# llama.cpp ends the process when these get rows of embeddings, the second ones unless they have M-RoPE.
_TOKENS_ALONE = ("granite-switch",)
_TOKENS_ALONE_UNLESS_MROPE = ("glm4", "glm4moe")
_NO_SNAPSHOTS = snapshots.Snapshots(0, 0)


class Model:
    """A loaded model with one context.

    Raises:
        ModelError: the file cannot be loaded, or the model does not generate text; the message has
            llama.cpp's reason.
        ValueError: an option does not fit the model.
    """

    def __init__(self, path: Path, options: LoadOptions, n_sequences: int) -> None:
        check_file(path)
        self.path = path
        self.options = options
        self.model: Any = None
        self.ctx: Any = None
        self.snapshots = _NO_SNAPSHOTS
        self._rpc: RpcDevices | None = None
        with captured_log(options.verbose) as errors:
            try:
                self._load(errors)
                self.vocab = Vocabulary(llama_cpp.llama_model_get_vocab(self.model))
                self.n_vocab = self.vocab.n_tokens
                self.n_embd = int(llama_cpp.llama_model_n_embd(self.model))
                self._make_context(n_sequences, errors)
                for adapter in (options.lora, options.control_vector):
                    if adapter is not None:
                        adapter.apply(self, errors)
            except BaseException:
                self.close()
                raise

    def _load(self, errors: list[str]) -> None:
        llama_cpp.llama_backend_init()
        check_model(self.path)
        params = self.options.model_params()
        if self.options.rpc_servers:
            self._rpc = RpcDevices(self.options.rpc_servers)
            params.devices = self._rpc.pointer()
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self.model:
            raise ModelError(f"llama.cpp cannot load {self.path}: {reason(errors)}. Is the file complete?")
        self._check_generates()

    def _make_context(self, n_sequences: int, errors: list[str]) -> None:
        options, name = self.options, self.path.name
        self._check_kv_types(options.type_k, options.type_v)
        if self.why_no_drafts() is not None:
            n_sequences = 1
        elif self.has_recurrent_state():
            self.snapshots = snapshots.choose(self.model, options)
            # Without snapshots drafts are tried in a copy of the only sequence.
            n_sequences = self.snapshots.n_texts if self.snapshots.n else 2
        params = options.context_params(n_sequences, n_snapshots=self.snapshots.n)
        self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        if not self.ctx:
            raise ModelError(
                f"llama.cpp cannot make a context of n_ctx={options.n_ctx} for {name}: {reason(errors)}. "
                "Try a smaller n_ctx or flash_attn=False"
            )
        if not llama_cpp.llama_get_memory(self.ctx):
            raise ModelError(f"{name} has no decoder, so it cannot generate text")

    def close(self) -> None:
        with captured_log(self.options.verbose):  # contexts on devices speak of their buffers
            if self.ctx:
                llama_cpp.llama_free(self.ctx)
                self.ctx = None
            if self.model:
                llama_cpp.llama_model_free(self.model)
                self.model = None
        if self._rpc:
            self._rpc.close()
            self._rpc = None

    def _check_generates(self) -> None:
        name = self.path.name
        if not llama_cpp.llama_model_has_decoder(self.model):
            raise ModelError(f"{name} has no decoder, so it cannot generate text")
        if llama_cpp.llama_model_has_encoder(self.model):
            raise ModelError(f"{name} is an encoder-decoder model; only decoders are supported")
        if llama_cpp.llama_model_is_diffusion(self.model):
            raise ModelError(f"{name} is a diffusion model; only token-by-token decoders are supported")
        if llama_cpp.llama_vocab_type(llama_cpp.llama_model_get_vocab(self.model)) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            raise ModelError(f"{name} has no vocabulary, so it cannot generate text")

    def _check_kv_types(self, *types: int | None) -> None:
        """Refuses KV cache types on which llama.cpp would abort."""
        architecture = self.metadata("general.architecture")
        head = self.metadata(f"{architecture}.attention.key_length")
        size = int(head) if head else self.n_embd // max(1, llama_cpp.llama_model_n_head(self.model))
        for kind in types:
            if kind is None:
                continue
            if kind not in _KV_TYPES:
                raise ValueError(f"type_k and type_v must be one of the ggml types {sorted(_KV_TYPES)}, got {kind}")
            if size % _KV_TYPES[kind]:
                raise ValueError(
                    f"a KV cache of ggml type {kind} needs heads of a multiple of {_KV_TYPES[kind]} dimensions, "
                    f"{self.path.name} has {size}; leave type_k and type_v out"
                )

    def why_no_drafts(self) -> str | None:
        """Why nothing can be drafted, None if something can."""
        if min(self.options.n_batch, self.options.n_ubatch) < 2:
            return "with n_batch or n_ubatch of 1 a pass has no room for drafts"
        return None

    def why_no_embeddings(self) -> str | None:
        """Why rows cannot be embeddings, as masks are; None if that can be tried."""
        architecture = self.metadata("general.architecture")
        mrope = (llama_cpp.LLAMA_ROPE_TYPE_MROPE, llama_cpp.LLAMA_ROPE_TYPE_IMROPE)
        if architecture in _TOKENS_ALONE or (
            architecture in _TOKENS_ALONE_UNLESS_MROPE and llama_cpp.llama_model_rope_type(self.model) not in mrope
        ):
            return f"llama.cpp takes no embeddings for {architecture}"
        return None

    def has_recurrent_state(self) -> bool:
        """Whether some of its layers, or all, keep a state in place of keys and values."""
        return bool(llama_cpp.llama_model_is_recurrent(self.model) or llama_cpp.llama_model_is_hybrid(self.model))

    def why_in_turn(self) -> str | None:
        """Why only one text can be generated at a time, None if several can be side by side."""
        if not self.has_recurrent_state() or self.snapshots.n_texts > 1:
            return None
        if not self.snapshots.n:
            return "no snapshots are kept of its state"
        if llama_cpp.llama_model_n_swa(self.model):
            return "cells that its sliding window has left behind would be taken for free ones"
        return f"there is no room for snapshots of {self.options.n_parallel} states"

    def metadata(self, key: str) -> str | None:
        """A GGUF metadata value as text, None if the model lacks it."""
        buffer = ctypes.create_string_buffer(1 << 16)
        n = llama_cpp.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if n >= 0 else None

    def all_metadata(self) -> dict[str, str]:
        """All GGUF metadata as text; llama.cpp leaves arrays out."""
        buffer = ctypes.create_string_buffer(1 << 16)
        found = {}
        for i in range(llama_cpp.llama_model_meta_count(self.model)):
            texts = []
            for read in (llama_cpp.llama_model_meta_key_by_index, llama_cpp.llama_model_meta_val_str_by_index):
                n = read(self.model, i, buffer, len(buffer))
                if n >= len(buffer):
                    buffer = ctypes.create_string_buffer(n + 1)
                    read(self.model, i, buffer, len(buffer))
                texts.append(buffer.value.decode(errors="replace"))
            found[texts[0]] = texts[1]
        return found

    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def n_ctx(self) -> int:
        """Context length in tokens."""
        return int(llama_cpp.llama_n_ctx(self.ctx))

    def n_threads(self) -> int:
        """Threads of passes."""
        return int(llama_cpp.llama_n_threads(self.ctx))

    def n_ubatch(self) -> int:
        """Most rows of a pass."""
        return int(llama_cpp.llama_n_ubatch(self.ctx))

    def n_seq_max(self) -> int:
        """Sequence ids that the context has."""
        return int(llama_cpp.llama_n_seq_max(self.ctx))
