"""What drafts does a model take? Opens its session, with embedding rows for masks where they stand for token ids."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import DecodeError, ModelError
from ..llamacpp.installed import IS_NEWER, llama_cpp, requirement, take_note
from ..llamacpp.model import Model
from ..results import Drafting
from . import self_test
from .embeddings import Embeddings
from .session import Session

# Ids and embedding rows must give the same logits; backends may differ in the last bits only.
_PATHS_AGREE = 0.02  # of the logits' standard deviation


class Opened(NamedTuple):
    """A session, what drafts it takes, and the embedding table that masks can ride with."""

    session: Session
    drafting: Drafting
    table: Embeddings | None
    embedding_scale: float | None  # by which rows of the table stand for token ids
    note: str | None = None  # what its user should know, once per process


def open_session(model: Model, *, cpu_kernels: bool) -> Opened:
    """The session of a model, which drafts as its memory allows, with masks where its embedding rows stand for ids.

    Raises:
        ModelError: the session cannot be made.
        BindingError: llama.cpp is newer than the tested ones, and decodes wrongly.
    """
    if not IS_NEWER:
        return _open(model, cpu_kernels)
    try:
        opened = _open(model, cpu_kernels)
    except DecodeError as error:
        raise self_test.decoded_wrongly(model, error) from error
    return _self_tested(opened, model, cpu_kernels)


def _self_tested(opened: Opened, model: Model, cpu_kernels: bool) -> Opened:
    """What was opened, if its passes come out right; else a session that decodes plainly."""
    fault = self_test.why_no_drafts(opened.session, model, opened.drafting, opened.table)
    if fault is None:
        return opened._replace(note=take_note())
    opened.session.close()
    why = (
        f"llama-cpp-python {llama_cpp.__version__} was not tested, and drafts come out wrong with it ({fault}). "
        f'Mend it with: pip install "{requirement()}"'
    )
    return Opened(Session(model.ctx, None, cpu_kernels=cpu_kernels), Drafting("none", why_none=why), None, None)


def _open(model: Model, cpu_kernels: bool) -> Opened:
    if (why := model.why_no_drafts()) is not None:
        session = Session(model.ctx, None, cpu_kernels=cpu_kernels)
        return Opened(session, Drafting("none", why_none=why), None, None)
    opened = _open_with_table(model, cpu_kernels)
    if isinstance(opened, str):
        session = Session(model.ctx, None, cpu_kernels=cpu_kernels)
        return Opened(session, _drafting(session, model, opened), None, None)
    session, table, scale = opened
    drafting = _drafting(session, model, None)
    return Opened(session, drafting, table if drafting.masks else None, scale)


def _drafting(session: Session, model: Model, why_no_masks: str | None) -> Drafting:
    shape = session.shape()
    if not shape.is_chain:
        return Drafting("trees", why_no_masks is None, why_no_masks=why_no_masks)
    if shape.decodes_again and why_no_masks is None:
        why_no_masks = "a chain with masks is never accepted as a whole"
    return Drafting(
        "chains",
        why_no_masks is None,
        why_no_trees="it keeps a recurrent state, which does not branch",
        why_no_masks=why_no_masks,
        n_snapshots=shape.n_snapshots,
        snapshot_bytes=shape.n_snapshots * model.snapshots.bytes_each * model.snapshots.n_texts,
        why_in_turn=model.why_in_turn() if model.options.n_parallel > 1 else None,
    )


def _open_with_table(model: Model, cpu_kernels: bool) -> tuple[Session, Embeddings, float] | str:
    """A session that reads the embedding table, or why the table does not stand for the token ids."""
    if (why := model.why_no_embeddings()) is not None:
        return why
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
    return session, table, scale


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
