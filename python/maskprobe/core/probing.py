"""Can a model be probed? Opens its session, with embedding rows where they stand for token ids."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import ModelError
from ..llamacpp.model import Model
from .embeddings import Embeddings
from .session import Session

# Ids and embedding rows must give the same logits; backends may differ in the last bits only.
_PATHS_AGREE = 0.02  # of the logits' standard deviation


class Opened(NamedTuple):
    """A session, and the embedding table that it can probe with."""

    session: Session
    table: Embeddings | None
    embedding_scale: float | None  # by which rows of the table stand for token ids
    why_plain: str | None  # why there is no such table; None if there is


def open_session(model: Model, *, cpu_kernels: bool) -> Opened:
    """The session of a model; one that decodes plainly where the model cannot be probed.

    Raises:
        ModelError: the session cannot be made.
    """
    why = model.why_no_probing()
    if why is None:
        opened = _open_probing(model, cpu_kernels)
        if isinstance(opened, Opened):
            return opened
        why = opened
    return Opened(Session(model.ctx, None, cpu_kernels=cpu_kernels), None, None, why)


def _open_probing(model: Model, cpu_kernels: bool) -> Opened | str:
    """A session that reads the embedding table, or why the table does not stand for the token ids."""
    try:
        table = Embeddings(model.path)
    except ModelError as error:
        return str(error)
    if (table.n_embd, table.n_vocab) != (model.n_embd, model.n_vocab):
        return f"its embedding table is {table.n_vocab} x {table.n_embd}, not one row per token"
    session = Session(model.ctx, table, cpu_kernels=cpu_kernels)
    scale = _find_embedding_scale(session, model)
    if scale is None:
        return "its embedding rows do not reproduce the logits of its token ids"
    session.set_embedding_scale(scale)
    return Opened(session, table, scale, None)


def _find_embedding_scale(session: Session, model: Model) -> float | None:
    """The factor by which embedding rows give the logits of token ids, None if no known one does.

    Some architectures scale embeddings on the way in for ids only (Gemma by sqrt(n_embd), others by a
    metadata value), some look up more than one table per id.
    """
    tokens = [model.n_vocab // 3, model.n_vocab // 2]
    scales = [1.0, math.sqrt(model.n_embd)]
    architecture = model.metadata("general.architecture")
    if (value := model.metadata(f"{architecture}.embedding_scale")) is not None:
        scales.append(float(value))
    for scale in scales:
        if session.compare_paths(tokens, scale) <= _PATHS_AGREE:
            return scale
    return None
