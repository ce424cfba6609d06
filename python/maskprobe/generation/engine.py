"""A loaded model with its session in the core and, where something can be drafted, what its drafts rest on.

Knows what fits the model and its context; leaves prompts as text, streams and locking to others.
"""

from __future__ import annotations

from ..core.pool import Pool, PoolSizes
from ..core.probing import open_session
from ..drafting.knowledge import Knowledge
from ..errors import UnsupportedModelError
from ..llamacpp.model import Model
from ..speculation import Speculation
from .seats import Seats


class Engine:
    """Owns the model and its sessions.

    Args:
        model: which the engine closes.
        setup: names what costs depend on besides the model.
        cpu_kernels: whether its passes take our kernels on the CPU.
        lanes: that generations side by side have, None = one at a time, as it is where a recurrent state wants it.

    Raises:
        ModelError: the session cannot be made.
    """

    def __init__(self, model: Model, setup: str, *, cpu_kernels: bool, lanes: PoolSizes | None = None) -> None:
        self.model = model
        self.setup = setup
        opened = open_session(model, cpu_kernels=cpu_kernels)
        self.session = opened.session
        self._pool: Pool | None = None
        if lanes is not None and model.why_in_turn() is None:
            opened.session.close()
            scale = 1.0 if opened.embedding_scale is None else opened.embedding_scale
            lanes = lanes.with_states() if model.has_recurrent_state() else lanes
            self._pool = Pool(model.ctx, opened.table, scale, lanes, cpu_kernels=cpu_kernels)
            self.session = self._pool.lanes[0]  # what one lane is taught all know
        self.seats = Seats(self.session, self._pool)
        self.drafting = opened.drafting  # what is possible, and why not more
        self.note = opened.note  # what its user should know, None if nothing
        self.embedding_scale = opened.embedding_scale  # by which embedding rows stand for token ids
        drafts = opened.drafting.shape != "none"
        self._knowledge = Knowledge(model, self.session, opened.table, setup) if drafts else None

    def close(self) -> None:
        """Frees everything; the engine is unusable after."""
        self.seats.close()
        if self._pool is None:
            self.session.close()
        else:
            self._pool.close()
        self.model.close()

    @property
    def knowledge(self) -> Knowledge:
        """What drafts rest on.

        Raises:
            UnsupportedModelError: nothing can be drafted.
        """
        if self._knowledge is None:
            raise self._decoded_plainly()
        return self._knowledge

    def check_fits(self, speculation: Speculation) -> None:
        """Checks a speculation against the model and its context.

        Raises:
            UnsupportedModelError: the model takes no such drafts.
            ValueError: the blocks are too large for the context.
        """
        name, drafting = self.model.path.name, self.drafting
        if drafting.shape == "none":
            raise self._decoded_plainly()
        if not drafting.masks and (not speculation.is_mixed() or speculation.sources == ("probe",)):
            raise UnsupportedModelError(f"{name} takes no masks, and this speculation has no other drafts: {drafting}")
        if drafting.shape == "chains" and not speculation.is_mixed():
            raise UnsupportedModelError(f"{name} takes no tree {speculation.tree!r}; use the mixed tree: {drafting}")
        n_ubatch, n_seq_max = self.model.n_ubatch(), self.model.n_seq_max()
        if speculation.rows() > n_ubatch and speculation.budget != "auto":
            raise ValueError(
                f"a block of {speculation.rows()} rows does not fit n_ubatch={n_ubatch}; "
                "use a smaller block or load the model with larger n_batch and n_ubatch"
            )
        n_leaves = n_seq_max if self._pool is None else self._pool.sizes.n_ids
        if drafting.shape == "trees" and speculation.leaves() > n_leaves:
            raise ValueError(
                f"a block of {speculation.rows()} rows with masks={speculation.masks} has up to "
                f"{speculation.leaves()} leaves, but this context has {n_leaves} sequences for it; "
                "load the model with that speculation"
            )

    def _decoded_plainly(self) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.model.path.name} is decoded plainly: {self.drafting.why_none}")

    def reset(self, *, learned: bool = False) -> None:
        """Forgets the KV cache; with learned, what generations have taught the drafts as well."""
        for seat in self.seats.all:
            seat.session.reset()
            seat.tokens = []
        if learned:
            for seat in self.seats.all:
                seat.session.forget()
            if self._knowledge is not None:
                self._knowledge.teach()
