"""The settings of drafting, validated when they are made. Knows numbers and names; no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from .checking import checked_flag, checked_integer, checked_number

ProbeName = Literal["auto", "prompt-mean", "table-mean", "last-k", "last-4-mean", "sample"]
SOURCES = ("probe", "ngrams", "adjacency", "history")
PROBES: tuple[str, ...] = get_args(ProbeName)
MAX_MASKS = 4
MAX_MIXED_ROWS = 512
MAX_LEAVES = 256  # llama.cpp's limit on sequence ids; every node that carries masks ends in one


@dataclass(frozen=True, eq=False)
class Speculation:
    """How a generation drafts and how much of it one pass verifies.

    Args:
        masks: mask embeddings per node, k in 1..4 [ESP, §3.1]; with the mixed tree 0 drafts without probing.
        tree: ``"mixed"``: all evidence (masks, n-grams, token adjacency, earlier texts), rows where they are
            expected to earn most. The published method: ``"dynamic"``, the most probable mask guesses that fill
            the block [ESP, Algorithm 1], or a tuple of children per depth such as ``(14,)`` or ``(15, 4)``
            (top-1 expansion; at most ``masks`` depths).
        block: most rows of one pass: root, drafted nodes and masks. Default: ``budget``, or 60, for the mixed tree,
            30 for a dynamic one, what it needs for a static one. From 64 rows on, CPU kernels round differently from
            one-row decoding: every token is still the model's own choice, but near ties may fall the other
            way.
        probe: start vectors of the masks: ``"table-mean"`` (mean of the embedding table), ``"prompt-mean"``
            [ESP, eq. 4], ``"last-k"`` (embeddings of the last k prompt tokens), ``"last-4-mean"`` (their mean
            over four), ``"sample"`` (normal with the table's mean and variance, from the generation's seed), an
            array [n_embd] or [masks, n_embd] in units of the embedding table's rows, or ``"auto"``: the one whose
            guesses come true most with this model. Default: auto for the mixed tree, else table-mean.
        update: lambda in 0..1; every committed token x moves the masks by lambda (e_x - m). [ESP, eq. 5]
            Default: 0 for ``table-mean`` and arrays, where moving measures worse, and 0.1 for the others;
            ``"auto"`` takes the chosen vector's default.
        prune: in static and dynamic trees, replace a candidate that repeats its parent by the next best.
            [ESP, §3.3]
        budget: mixed tree only. ``"auto"``: as many rows as earn their cost on this machine. A number: no
            pass takes more rows, and rows up to there count as free.
        sources: mixed tree only: which evidence is used, ``"probe"`` (masks), ``"ngrams"`` (prompt lookup),
            ``"adjacency"`` (Token Recycling) and ``"history"`` (what the model wrote earlier). Default: all; without
            ``"probe"`` masks are 0.
        cost_curve: mixed tree only: cost of a pass by rows, in any unit, in place of what this machine
            measures; interpolated.

    Raises:
        ValueError, TypeError: a value is out of range; the message names it.
    """

    masks: int = 1
    tree: tuple[int, ...] | Literal["mixed", "dynamic"] = "mixed"
    block: int | None = None
    probe: ProbeName | npt.NDArray[np.float32] | None = None
    update: float | None = None
    prune: bool = True
    budget: int | Literal["auto"] | None = None
    cost_curve: Mapping[int, float] | None = None
    sources: tuple[str, ...] = SOURCES

    def __post_init__(self) -> None:
        checked_integer("masks", self.masks, 0 if self.tree == "mixed" else 1, MAX_MASKS)
        object.__setattr__(self, "tree", self._checked_tree())
        object.__setattr__(self, "sources", self._checked_sources())
        if "probe" not in self.sources:
            object.__setattr__(self, "masks", 0)
        object.__setattr__(self, "budget", self._checked_budget())
        object.__setattr__(self, "cost_curve", self._checked_cost_curve())
        object.__setattr__(self, "block", self._checked_block())
        object.__setattr__(self, "probe", self._checked_probe())
        if self.update is not None:
            checked_number("update", self.update, 0.0, 1.0)
        checked_flag("prune", self.prune)

    @classmethod
    def paper(cls, block: int = 30) -> Speculation:
        """The published setting for k = 1 at 10, 30 or 60 rows: prompt mean, lambda 0.1. [ESP, §4]"""
        if block not in (10, 30, 60):
            raise ValueError(f"the paper's blocks have 10, 30 or 60 rows, got {block!r}")
        return cls(masks=1, tree=(block // 2 - 1,), probe="prompt-mean", update=0.1)

    def is_mixed(self) -> bool:
        """Whether all evidence is used, not mask guesses alone."""
        return self.tree == "mixed"

    def plans_with_measured_costs(self) -> bool:
        """Whether rows are chosen by what they cost on this machine."""
        return self.budget == "auto" and self.cost_curve is None

    def probe_is(self, name: str) -> bool:
        """Whether the start vector is the named one."""
        return isinstance(self.probe, str) and self.probe == name

    def rows(self) -> int:
        """Most rows of one pass."""
        assert self.block is not None, "resolved in __post_init__"
        return self.block

    def leaves(self) -> int:
        """Leaves of the largest block that needs them all; each takes one of llama.cpp's sequence ids."""
        return 1 if self.is_mixed() else self.rows() // (1 + self.masks)

    def update_for(self, probe: str | npt.NDArray[np.float32]) -> float:
        """lambda for a start vector: the given one, or the vector's default."""
        if self.update is not None:
            return self.update
        return 0.1 if isinstance(probe, str) and probe not in ("table-mean", "catalogue") else 0.0

    def widths(self) -> tuple[int, ...]:
        """Children per depth of a static tree, empty for the others."""
        return () if isinstance(self.tree, str) else self.tree

    def _checked_tree(self) -> tuple[int, ...] | Literal["mixed", "dynamic"]:
        choices = '"mixed", "dynamic" or a tuple of widths such as (14,)'
        if isinstance(self.tree, str):
            if self.tree not in ("mixed", "dynamic"):
                raise ValueError(f"tree must be {choices}, got {self.tree!r}")
            return self.tree
        if not isinstance(self.tree, Sequence):
            raise TypeError(f"tree must be {choices}, got {self.tree!r}")
        tree = tuple(checked_integer("tree width", width, 1, MAX_LEAVES - 1) for width in self.tree)
        if not 1 <= len(tree) <= self.masks:
            raise ValueError(
                f"tree {tree} has {len(tree)} depths, but masks={self.masks} propose 1..{self.masks}; "
                "shorten the tree or raise masks"
            )
        return tree

    def _checked_sources(self) -> tuple[str, ...]:
        sources = (self.sources,) if isinstance(self.sources, str) else tuple(self.sources)
        if not sources or not set(sources) <= set(SOURCES):
            raise ValueError(f"sources must be some of {', '.join(SOURCES)}, got {self.sources!r}")
        if sources != SOURCES and not self.is_mixed():
            raise ValueError(f"sources={sources} needs the mixed tree; a {self.tree} tree has mask guesses alone")
        return sources

    def _checked_budget(self) -> int | Literal["auto"] | None:
        if not self.is_mixed():
            if self.budget is not None:
                raise ValueError(f"budget={self.budget!r} needs the mixed tree; a {self.tree} tree has its block")
            return None
        if self.budget is None or self.budget == "auto":
            return "auto"
        if isinstance(self.budget, str):
            raise ValueError(f'budget must be "auto" or a number of rows, got {self.budget!r}')
        return checked_integer("budget", self.budget, 1, MAX_MIXED_ROWS)

    def _checked_cost_curve(self) -> Mapping[int, float] | None:
        if self.cost_curve is None:
            return None
        if not self.is_mixed():
            raise ValueError(f"cost_curve needs the mixed tree; a {self.tree} tree has its block")
        if not isinstance(self.cost_curve, Mapping) or not self.cost_curve:
            raise TypeError(f"cost_curve must map rows to costs, got {self.cost_curve!r}")
        curve = {}
        for rows, cost in sorted(self.cost_curve.items()):
            curve[checked_integer("rows of cost_curve", rows, 1, 2**20)] = checked_number("cost", cost, 0.0)
        if min(curve.values()) <= 0.0:
            raise ValueError(f"costs must be above 0, got {curve}")
        return MappingProxyType(curve)

    def _checked_block(self) -> int:
        if self.is_mixed():
            most = self.budget if isinstance(self.budget, int) else 60
            return most if self.block is None else min(most, checked_integer("block", self.block, 1, MAX_MIXED_ROWS))
        per_node = 1 + self.masks
        need = per_node * (1 + sum(self.widths()))
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
        if self.probe is None:
            return "auto" if self.is_mixed() else "table-mean"
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
