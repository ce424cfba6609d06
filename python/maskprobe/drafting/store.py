"""What `maskprobe tune` has found out about a model: stored by it, used by every object that loads the model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import cache
from ..core.session import ADJACENCY_WIDTH, Followers
from .costs import Costs

_ADJACENCY, _PARTIAL, _TEXTS = "adjacency", "adjacency-partial", "texts"

Texts = list[npt.NDArray[np.int32]]


def load_costs(model: Path, setup: str) -> Costs | None:
    """Milliseconds of a pass by rows, None if not tuned for this setup."""
    stored = cache.load_json(_costs_of(setup), model)
    try:
        costs = Costs({int(rows): float(ms) for rows, ms in stored["ms"].items()}, float(stored["change"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    usable = 1 in costs and all(rows > 0 and 0.0 < ms < np.inf for rows, ms in costs.items())
    return costs if usable and 0.0 <= costs.change < np.inf else None


def store_costs(model: Path, setup: str, costs: Costs) -> None:
    """Stores a cost curve beside those of other setups, which other processes may be storing meanwhile."""
    cache.store_json(_costs_of(setup), model, {"ms": costs, "change": costs.change})


def _costs_of(setup: str) -> str:
    # A file for each setup: nothing is read, changed and written back, so no process undoes another's work.
    return f"costs-{hashlib.sha256(setup.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def load_adjacency(model: Path, n_vocab: int, *, partial: bool = False) -> Followers | None:
    """Followers of the whole vocabulary (partial: of its first tokens), None if there are none."""
    stored = cache.load_arrays(_PARTIAL if partial else _ADJACENCY, model) or {}
    tokens, logps = stored.get("tokens"), stored.get("logps")
    if tokens is None or logps is None or tokens.ndim != 2 or tokens.shape != logps.shape:
        return None
    if tokens.shape[1] != ADJACENCY_WIDTH or len(tokens) > n_vocab or (not partial and len(tokens) != n_vocab):
        return None
    if tokens.dtype != np.int32 or tokens.min(initial=0) < -1 or tokens.max(initial=0) >= n_vocab:
        return None
    return tokens, logps.astype(np.float32)


def store_adjacency(model: Path, followers: Followers, *, partial: bool = False) -> None:
    """Stores followers; half floats are plenty for log-probabilities of candidates."""
    arrays: cache.Arrays = {"tokens": followers[0], "logps": followers[1].astype(np.float16)}
    cache.store_arrays(_PARTIAL if partial else _ADJACENCY, model, arrays)


def load_texts(model: Path, n_vocab: int) -> Texts:
    """What the model wrote for tuning, text by text; none if there are none."""
    stored = cache.load_arrays(_TEXTS, model) or {}
    tokens, lengths = stored.get("tokens"), stored.get("lengths")
    if tokens is None or lengths is None or tokens.dtype != np.int32 or lengths.dtype != np.int32:
        return []
    if tokens.ndim != 1 or lengths.ndim != 1 or lengths.min(initial=0) < 0 or lengths.sum() != len(tokens):
        return []
    if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= n_vocab:
        return []
    return np.split(tokens, np.cumsum(lengths)[:-1])


def store_texts(model: Path, texts: Texts) -> None:
    """Stores texts, some or all that are wanted."""
    lengths = np.array([len(text) for text in texts], np.int32)
    cache.store_arrays(_TEXTS, model, {"tokens": np.concatenate(texts), "lengths": lengths})
