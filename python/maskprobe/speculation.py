"""The settings of drafting, validated when they are made. Knows numbers and names; no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

ProbeName = Literal["prompt-mean", "table-mean", "last-k", "sample"]
PROBES: tuple[str, ...] = get_args(ProbeName)
MAX_MASKS = 4
MAX_LEAVES = 256  # llama.cpp's limit on sequence ids; every node that carries masks ends in one


@dataclass(frozen=True, eq=False)
class Speculation:
    """How a generation drafts and how much of it one pass verifies.

    Args:
        masks: mask embeddings per node, k in 1..4. [ESP, §3.1]
        tree: children per depth of a static tree, e.g. ``(14,)`` or ``(15, 4)`` (top-1 expansion; at most
            ``masks`` depths), or ``"dynamic"``: the most probable nodes that fit the block. [ESP, Algorithm 1]
        block: most rows of one pass: root, drafted nodes and the masks of each. Default: what a static tree
            needs, 30 for a dynamic one. From 64 rows on, CPU kernels round differently from one-row decoding:
            every token is still the model's own choice, but near ties may fall the other way.
        probe: start vectors of the masks: ``"table-mean"`` (mean of the embedding table), ``"prompt-mean"``
            [ESP, eq. 4], ``"last-k"`` (embeddings of the last k prompt tokens), ``"sample"`` (normal with the
            table's mean and variance, from the generation's seed), or an array [n_embd] or [masks, n_embd] in
            units of the embedding table's rows.
        update: lambda in 0..1; every committed token x moves the masks by lambda (e_x - m). [ESP, eq. 5]
            Default: 0 for ``table-mean``, where moving measures worse, and 0.1 for the others.
        prune: replace a candidate that repeats its parent by the next best. [ESP, §3.3]

    Raises:
        ValueError, TypeError: a value is out of range; the message names it.
    """

    masks: int = 1
    tree: tuple[int, ...] | Literal["dynamic"] = (14,)
    block: int | None = None
    probe: ProbeName | npt.NDArray[np.float32] = "table-mean"
    update: float | None = None
    prune: bool = True

    def __post_init__(self) -> None:
        checked_integer("masks", self.masks, 1, MAX_MASKS)
        object.__setattr__(self, "tree", self._checked_tree())
        object.__setattr__(self, "block", self._checked_block())
        object.__setattr__(self, "probe", self._checked_probe())
        if self.update is None:
            constant = isinstance(self.probe, str) and self.probe == "table-mean"
            object.__setattr__(self, "update", 0.0 if constant else 0.1)
        update = self.update
        if not isinstance(update, (int, float)) or isinstance(update, bool) or not 0.0 <= update <= 1.0:
            raise ValueError(f"update must be a number in 0..1, got {update!r}")
        if not isinstance(self.prune, bool):
            raise TypeError(f"prune must be True or False, got {self.prune!r}")

    @classmethod
    def paper(cls, block: int = 30) -> Speculation:
        """The published setting for k = 1 at 10, 30 or 60 rows: prompt mean, lambda 0.1. [ESP, §4]"""
        if block not in (10, 30, 60):
            raise ValueError(f"the paper's blocks have 10, 30 or 60 rows, got {block!r}")
        return cls(masks=1, tree=(block // 2 - 1,), probe="prompt-mean", update=0.1)

    def leaves(self) -> int:
        """Most leaves of one block; each takes one of llama.cpp's sequence ids."""
        return self.rows() // (1 + self.masks)

    def rows(self) -> int:
        """Most rows of one pass."""
        assert self.block is not None  # resolved in __post_init__
        return self.block

    def widths(self) -> tuple[int, ...]:
        """Children per depth of a static tree, empty for a dynamic one."""
        return () if isinstance(self.tree, str) else self.tree

    def _checked_tree(self) -> tuple[int, ...] | Literal["dynamic"]:
        if isinstance(self.tree, str):
            if self.tree != "dynamic":
                raise ValueError(f'tree must be "dynamic" or a tuple of widths such as (14,), got {self.tree!r}')
            return "dynamic"
        if not isinstance(self.tree, Sequence):
            raise TypeError(f'tree must be "dynamic" or a tuple of widths such as (14,), got {self.tree!r}')
        tree = tuple(checked_integer("tree width", width, 1, MAX_LEAVES - 1) for width in self.tree)
        if not 1 <= len(tree) <= self.masks:
            raise ValueError(
                f"tree {tree} has {len(tree)} depths, but masks={self.masks} propose 1..{self.masks}; "
                "shorten the tree or raise masks"
            )
        return tree

    def _checked_block(self) -> int:
        per_node = 1 + self.masks
        need = per_node * (1 + sum(self.tree)) if not isinstance(self.tree, str) else per_node
        if self.block is None:
            block = 30 if isinstance(self.tree, str) else need
        else:
            block = checked_integer("block", self.block, 1, MAX_LEAVES * per_node)
        if block < need:
            what = "a root and its masks need" if isinstance(self.tree, str) else f"tree {self.tree} needs"
            raise ValueError(f"block={block} is too small: with masks={self.masks}, {what} {need} rows")
        if block // per_node > MAX_LEAVES:
            raise ValueError(f"tree {self.tree} has more than llama.cpp's {MAX_LEAVES} sequences")
        return block

    def _checked_probe(self) -> ProbeName | npt.NDArray[np.float32]:
        if isinstance(self.probe, str):
            if self.probe not in PROBES:
                raise ValueError(f"unknown probe {self.probe!r}; choose one of {', '.join(PROBES)} or pass an array")
            return self.probe
        try:
            array = np.array(self.probe, dtype=np.float32)  # a copy: the settings are frozen
        except (TypeError, ValueError) as error:
            raise TypeError(f"probe must be a name or a numeric array, got {type(self.probe).__name__}") from error
        if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] != self.masks):
            raise ValueError(f"a probe array has shape [n_embd] or [{self.masks}, n_embd], got {list(array.shape)}")
        if not np.isfinite(array).all():
            raise ValueError("the probe array holds NaN or infinite values")
        array.setflags(write=False)
        return array


def checked_integer(name: str, value: object, low: int, high: int) -> int:
    """Checks an integer against a closed range; True and False are not integers here."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, got {value}")
    return int(value)


def checked_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """Checks a number against a closed range; NaN is out of every range."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (low <= value <= high and math.isfinite(value)):
        bounds = f"at least {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return float(value)
