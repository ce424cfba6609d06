"""How many generations share passes where nobody says how many: four, or as many as there is memory for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..llamacpp.gguf import opened
from ..llamacpp.logs import captured_log
from ..llamacpp.memory import left_bytes
from .pool import ids_of_lane

_USUAL = 4
_SHARE = 0.1  # of the memory that the model leaves, for what more lanes take; the rest is for cells and programs


class Lanes(NamedTuple):
    """So many, and why there are not more."""

    n: int
    why_not_more: str | None = None


def fitting_lanes(model: Path, n_gpu_layers: int, n_leaves: int) -> Lanes:
    """As many lanes as fit. All share n_ctx cells, so what each takes is a row of logits for each of its sequences.

    Args:
        model: its file.
        n_gpu_layers: 0 = its weights lie in main memory.
        n_leaves: most leaves of the blocks that are asked for by name.
    """
    with captured_log(verbose=False), opened(model) as header:  # what is wrong with it is said when it is loaded
        n_vocab = 0 if header is None else header.length("tokenizer.ggml.tokens")
    left = left_bytes(model, n_gpu_layers)
    why: str | None = None
    for n in range(_USUAL, 1, -1):
        n_ids = ids_of_lane(n, n_leaves)
        needed = n * n_ids * n_vocab * 4
        if n_ids < n_leaves:
            why = f"{n} have no room for blocks of {n_leaves} leaves"
        elif needed > _SHARE * left:
            why = f"{n} take {_mib(needed)} MiB for logits, and the model leaves {_mib(left)} MiB of memory"
        else:
            return Lanes(n, why)
    return Lanes(1, why)


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.0f}"
