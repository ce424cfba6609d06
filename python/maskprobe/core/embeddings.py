"""Rows of the model's token embedding table.

The table is never expanded: rows are read and dequantized one at a time by the core.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from ..splits import split_paths
from .binding import check, ffi, lib

FloatArray = npt.NDArray[np.float32]

_ROWS_PER_CALL = 4096  # between two calls Python sees Ctrl-C


class Embeddings:
    """The embedding table of a GGUF model.

    Raises:
        ModelError: the file has no readable ``token_embd.weight``.
    """

    def __init__(self, path: Path) -> None:
        paths = [ffi.new("char[]", os.fsencode(p)) for p in split_paths(path)]
        handle = lib.mp_embeddings_init(paths, len(paths))
        if handle == ffi.NULL:
            raise ModelError(ffi.string(lib.mp_last_error()).decode())
        self.handle: Any = ffi.gc(handle, lib.mp_embeddings_free)
        self.n_embd: int = lib.mp_embeddings_n_embd(handle)
        self.n_vocab: int = lib.mp_embeddings_n_vocab(handle)

    def rows(self, tokens: Sequence[int]) -> FloatArray:
        """The rows of the given tokens, [len(tokens), n_embd]."""
        ids = np.asarray(tokens, dtype=np.int32)
        out = np.empty((len(ids), self.n_embd), dtype=np.float32)
        c_ids, c_out = ffi.from_buffer("int32_t[]", ids), ffi.from_buffer("float[]", out, require_writable=True)
        check(lib.mp_embeddings_rows(self.handle, c_ids, len(ids), c_out))
        return out

    def mean_and_deviation(self, tokens: Sequence[int] | range) -> tuple[FloatArray, FloatArray]:
        """Per-dimension mean and standard deviation over the rows of the given tokens, [n_embd] each."""
        total, squares = np.zeros(self.n_embd), np.zeros(self.n_embd)
        c_total = ffi.from_buffer("double[]", total, require_writable=True)
        c_squares = ffi.from_buffer("double[]", squares, require_writable=True)
        for start in range(0, len(tokens), _ROWS_PER_CALL):
            ids = np.asarray(tokens[start : start + _ROWS_PER_CALL], dtype=np.int32)
            c_ids = ffi.from_buffer("int32_t[]", ids)
            check(lib.mp_embeddings_accumulate(self.handle, c_ids, len(ids), c_total, c_squares))
        mean = total / len(tokens)
        deviation = np.sqrt(np.maximum(squares / len(tokens) - mean**2, 0.0))
        return mean.astype(np.float32), deviation.astype(np.float32)
