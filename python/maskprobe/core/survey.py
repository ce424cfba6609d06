"""What is found out about a model and a machine before anything is generated.

Thin wrappers over the core; each runs in an empty KV cache and leaves it empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .binding import check, ffi, lib

WIDTH: int = lib.MP_ADJACENCY_WIDTH

Followers = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def compare_paths(session: Any, tokens: Sequence[int], scale: float) -> float:
    """Largest difference between the logits of ids and of embedding rows, in standard deviations of the logits."""
    difference, deviation = ffi.new("float *"), ffi.new("float *")
    check(lib.mp_session_compare_paths(session, list(tokens), len(tokens), scale, difference, deviation))
    return float(difference[0]) / max(float(deviation[0]), 1e-9)


def time_rows(session: Any, n_rows: int) -> float:
    """Milliseconds of one llama_decode of n_rows tokens."""
    ms = ffi.new("double *")
    check(lib.mp_session_time_rows(session, n_rows, ms))
    return float(ms[0])


def rank_followers(session: Any, first: int, tokens: Sequence[int]) -> Followers:
    """What follows each token alone after first (-1: nothing): ids and log-probabilities, [len(tokens), WIDTH]."""
    ids = np.empty((len(tokens), WIDTH), dtype=np.int32)
    logps = np.empty((len(tokens), WIDTH), dtype=np.float32)
    c_ids = ffi.from_buffer("int32_t[]", ids, require_writable=True)
    c_logps = ffi.from_buffer("float[]", logps, require_writable=True)
    check(lib.mp_session_rank_followers(session, first, list(tokens), len(tokens), c_ids, c_logps))
    return ids, logps


def set_adjacency(session: Any, followers: Followers) -> None:
    """Gives the session the followers of the whole vocabulary, [n_vocab, WIDTH] each."""
    ids = np.ascontiguousarray(followers[0], dtype=np.int32)
    logps = np.ascontiguousarray(followers[1], dtype=np.float32)
    check(lib.mp_session_set_adjacency(session, ffi.from_buffer("int32_t[]", ids), ffi.from_buffer("float[]", logps)))
