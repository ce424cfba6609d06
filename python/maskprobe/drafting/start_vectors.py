"""The vectors that masks start from, and which of them suits a model. [ESP, §3.1]

Each is tried, the one whose guesses come true most is kept: a guess is scored by the log-probability that the mask's
row gave to the token that came. Scores are kept per model file. The choice decides how fast tokens come, never which.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from .. import cache
from ..core.embeddings import Embeddings, FloatArray
from ..splits import model_stem

CATALOGUE = "catalogue"  # a vector calibrated for the model, where there is one
_NAMES = ("table-mean", "prompt-mean", "last-4-mean")
_ENOUGH = 96  # scored guesses before a vector has had its chance
_CACHE_NAME = "probes"


class StartVectors:
    """The start vectors of one model's masks.

    Args:
        table: of the model's embeddings.
        model: its file.
    """

    def __init__(self, table: Embeddings, model: Path) -> None:
        self._table = table
        self._model = model
        self.choice = ProbeChoice(model, table.n_embd)

    @cached_property
    def table_mean_and_deviation(self) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation of the whole table, [n_embd] each; computed once per model file and stored."""
        stored = cache.load_arrays("embeddings", self._model) or {}
        mean, deviation = stored.get("mean"), stored.get("deviation")
        if not all(_is_vector(m, self._table.n_embd) for m in (mean, deviation)):
            mean, deviation = self._table.mean_and_deviation(range(self._table.n_vocab))
            cache.store_arrays("embeddings", self._model, {"mean": mean, "deviation": deviation})
        assert mean is not None, "loaded or computed"
        assert deviation is not None, "loaded or computed"
        return mean.astype(np.float32), deviation.astype(np.float32)

    def choose(self, probe: str | FloatArray | None) -> tuple[str, str | FloatArray]:
        """The name of a vector, and the vector or its name again: the one asked for, or the one that suits best."""
        if isinstance(probe, np.ndarray):
            return "array", probe
        name = self.choice.name() if probe is None or probe == "auto" else probe
        if name == CATALOGUE and self.choice.vector is not None:
            return name, self.choice.vector
        return name, name

    def masks(self, k: int, probe: str | FloatArray, prompt: Sequence[int], seed: int) -> FloatArray:
        """Start values of k masks, [k, n_embd].

        Raises:
            ValueError: an array given as probe has another width than the model's embeddings.
        """
        table = self._table
        if not isinstance(probe, str):
            if probe.shape[-1] != table.n_embd:
                raise ValueError(f"the probe array has {probe.shape[-1]} dimensions, the model has {table.n_embd}")
            masks = np.broadcast_to(probe, (k, table.n_embd))
        elif probe == "prompt-mean":
            masks = np.tile(table.mean_and_deviation(prompt)[0], (k, 1))
        elif probe == "last-4-mean":
            masks = np.tile(table.mean_and_deviation(prompt[-4:])[0], (k, 1))
        elif probe == "last-k":
            # A prompt shorter than k repeats its first token.
            masks = table.rows([prompt[max(0, len(prompt) - k + i)] for i in range(k)])
        else:
            mean, deviation = self.table_mean_and_deviation
            masks = np.tile(mean, (k, 1))
            if probe == "sample":
                masks += deviation * np.random.default_rng(seed).standard_normal((k, table.n_embd), dtype=np.float32)
        return np.ascontiguousarray(masks, dtype=np.float32)


def _is_vector(array: Any, n_embd: int) -> bool:
    """Whether what came from a file is a vector of so many finite numbers."""
    return array is not None and cache.is_numeric(array) and array.shape == (n_embd,) and bool(np.isfinite(array).all())


class ProbeChoice:
    """The scores of one model's start vectors, and the choice by them."""

    def __init__(self, model: Path, n_embd: int) -> None:
        self._model = model
        self.vector = _catalogue_vector(model_stem(model), n_embd)
        self.names = (CATALOGUE, *_NAMES) if self.vector is not None else _NAMES
        self._scores = dict.fromkeys(self.names, (0, 0.0))
        stored = cache.load_json(_CACHE_NAME, model)
        for name, score in stored.items() if isinstance(stored, dict) else ():
            if name in self._scores and _is_score(score):
                self._scores[name] = (int(score[0]), float(score[1]))

    def name(self) -> str:
        """The vector to use next: the first that has not had its chance, or the best."""
        for name, (n, _) in self._scores.items():
            if n < _ENOUGH:
                return name
        return self.best()

    def best(self) -> str:
        """The vector with the best mean score so far; an earlier one wins ties."""
        return max(self.names, key=lambda name: self.mean(name))

    def mean(self, name: str) -> float:
        """Mean log-probability of what came, -inf without any guess."""
        n, total = self._scores[name]
        return total / n if n else -np.inf

    def set(self, name: str, n: int, total: float) -> None:
        """Replaces a vector's scored guesses and remembers them; at least enough of them to settle the choice."""
        self._scores[name] = (max(n, _ENOUGH), total * max(n, _ENOUGH) / max(n, 1))
        cache.store_json(_CACHE_NAME, self._model, self._scores)

    def add(self, name: str, n: int, total: float) -> None:
        """Adds scored guesses; remembers them once every vector has had its chance."""
        if name not in self._scores or n == 0:
            return
        before = self._scores[name]
        self._scores[name] = (before[0] + n, before[1] + total)
        # Once the choice is made only its outcome matters: no write per generation.
        if before[0] < _ENOUGH <= self._scores[name][0]:
            cache.store_json(_CACHE_NAME, self._model, self._scores)


def _is_score(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and type(value[0]) is int
        and 0 <= value[0] < 2**63
        and isinstance(value[1], float)
        and np.isfinite(value[1])
    )


def _catalogue_vector(stem: str, n_embd: int) -> FloatArray | None:
    """A calibrated vector for a model: NAME.npy in $MASKPROBE_MODELS or in the package's models folder.

    NAME is the file's stem without its quantization, so one vector serves all of a model's files.
    """
    name = re.sub(r"[.-](I?Q\d\w*|F16|F32|BF16)$", "", stem, flags=re.IGNORECASE)
    folders = [Path(os.environ["MASKPROBE_MODELS"])] if "MASKPROBE_MODELS" in os.environ else []
    packaged = files("maskprobe") / "models"
    for path in (*(folder / f"{name}.npy" for folder in folders), packaged / f"{name}.npy"):
        try:
            with path.open("rb") as file:
                vector = np.load(file, allow_pickle=False)
        except (OSError, ValueError):
            continue
        if _is_vector(vector, n_embd):
            return np.asarray(vector, dtype=np.float32)
    return None
