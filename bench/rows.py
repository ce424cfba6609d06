"""A context of a benchmark's own on a loaded model: rows are decoded as they are given, token ids or vectors, each at a
position and in sequences. A row sees the rows of its first sequence at earlier positions.

For comparisons with the core, which does not take part in it.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskprobe.core.embeddings import Embeddings, FloatArray
from maskprobe.drafting.start_vectors import StartVectors
from maskprobe.errors import DecodeError, ModelError, UnsupportedModelError
from maskprobe.llama import MaskProbeLlama
from maskprobe.llamacpp.installed import llama_cpp

_BATCH = 512  # prompt tokens per call, as in the core


class Row(NamedTuple):
    """A token id or an embedding vector, in units of the embedding table's rows, and where it stands."""

    what: int | FloatArray
    position: int
    sequences: Sequence[int]


class RowContext:
    """Decodes rows; all of them are outputs.

    Args:
        llm: whose model and settings are used; it keeps its own context.
        n_sequences: sequence ids that rows may carry.
        watch: called by llama.cpp's scheduler for every tensor, as ``cb_eval`` in llama.h.

    Raises:
        UnsupportedModelError: the model cannot be probed.
        ModelError: no context can be made.
    """

    def __init__(
        self, llm: MaskProbeLlama, *, n_sequences: int, watch: Callable[[int, bool, Any], bool] | None = None
    ) -> None:
        if not llm.drafting.masks or llm.drafting.shape != "trees":
            raise UnsupportedModelError(f"{llm.engine.model.path.name} takes no masks in trees: {llm.drafting}")
        model = llm.engine.model
        self.embeddings = Embeddings(model.path)
        self.start_vectors = StartVectors(self.embeddings, model.path)
        self.n_embd, self.n_vocab = model.n_embd, model.n_vocab
        self._vocab = llama_cpp.llama_model_get_vocab(model.model)
        self._scale = llm.engine.embedding_scale or 1.0
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = llm.n_ctx()
        params.n_batch = params.n_ubatch = _BATCH
        params.n_seq_max = n_sequences
        params.n_threads = params.n_threads_batch = llm.n_threads()
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified = params.swa_full = True
        if watch is not None:
            self._watch = params.cb_eval = llama_cpp.ggml_backend_sched_eval_callback(watch)
        self._ctx = llama_cpp.llama_init_from_model(model.model, params)
        if not self._ctx:
            raise ModelError(f"llama.cpp cannot make a second context of n_ctx={llm.n_ctx()}; try a smaller one")
        self._memory = llama_cpp.llama_get_memory(self._ctx)

    def close(self) -> None:
        """Frees the context; the model stays."""
        if self._ctx:
            llama_cpp.llama_free(self._ctx)
            self._ctx = None

    def begin(self, prompt: Sequence[int], sequences: Sequence[int]) -> None:
        """Empties the KV cache and decodes a prompt, as the core does."""
        llama_cpp.llama_memory_clear(self._memory, False)
        for start in range(0, len(prompt), _BATCH):
            piece = prompt[start : start + _BATCH]
            self.decode([Row(token, start + i, sequences) for i, token in enumerate(piece)], last_only=True)

    def decode(self, rows: Sequence[Row], *, last_only: bool = False) -> float:
        """One llama_decode; returns its milliseconds. Rows with a vector among them are all given as embeddings.

        Raises:
            DecodeError: it failed.
        """
        n = len(rows)
        batch = llama_cpp.llama_batch()
        batch.n_tokens = n
        if all(isinstance(row.what, int) for row in rows):
            batch.token = (llama_cpp.llama_token * n)(*(row.what for row in rows))
        else:
            vectors = np.ascontiguousarray(np.stack([self.vector(row.what) for row in rows]) * np.float32(self._scale))
            batch.embd = vectors.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        ids = [(llama_cpp.llama_seq_id * len(row.sequences))(*row.sequences) for row in rows]
        batch.pos = (llama_cpp.llama_pos * n)(*(row.position for row in rows))
        batch.n_seq_id = (ctypes.c_int32 * n)(*map(len, ids))
        pointer = ctypes.POINTER(llama_cpp.llama_seq_id)
        batch.seq_id = (pointer * n)(*(ctypes.cast(one, pointer) for one in ids))
        batch.logits = (ctypes.c_int8 * n)(*(not last_only or i == n - 1 for i in range(n)))
        start = time.perf_counter()
        if (code := llama_cpp.llama_decode(self._ctx, batch)) != 0:
            raise DecodeError(f"llama_decode failed with {code} for {n} rows; raise n_ctx")
        llama_cpp.llama_synchronize(self._ctx)
        return 1e3 * (time.perf_counter() - start)

    def vector(self, what: int | FloatArray) -> FloatArray:
        """A vector as it is, a token as its row of the embedding table."""
        return self.embeddings.rows([what])[0] if isinstance(what, int) else what

    def ends(self, token: int) -> bool:
        """Whether a token ends a generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def logits(self, row: int) -> FloatArray:
        """The logits of a row of the last call, -1 = the last; good until the next call."""
        pointer = ctypes.cast(llama_cpp.llama_get_logits_ith(self._ctx, row), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, (self.n_vocab,))

    def drop(self, first_position: int, sequences: Iterable[int] = (-1,)) -> None:
        """Forgets rows from a position on, in some sequences or in all."""
        for sequence in sequences:
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, first_position, -1)
