"""Which start vector suits a model: each is tried, the one whose guesses come true most is kept.

A guess is scored by the log-probability that the mask's row gave to the token that came. Scores are kept
per model file. The choice decides how fast tokens come, never which.
"""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from .. import cache
from ..core.embeddings import FloatArray
from ..splits import model_stem

_NAMES = ("table-mean", "prompt-mean", "last-4-mean")
_ENOUGH = 96  # scored guesses before a vector has had its chance
_CACHE_NAME = "probes"


class ProbeChoice:
    """The scores of one model's start vectors, and the choice by them."""

    def __init__(self, model: Path, n_embd: int) -> None:
        self._model = model
        self.vector = _catalogue_vector(model_stem(model), n_embd)
        self.names = ("catalogue", *_NAMES) if self.vector is not None else _NAMES
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
        # Of the finished choice only the outcome matters: no write per generation.
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
        if cache.is_numeric(vector) and vector.ndim == 1 and len(vector) == n_embd and np.isfinite(vector).all():
            return np.asarray(vector, dtype=np.float32)
    return None
