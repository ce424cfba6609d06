"""What is known of a model and a machine that drafts rest on: start vectors, costs of rows, what tuning has stored.

Makes of a Speculation what the core drafts with; leaves drafting itself to the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core.embeddings import Embeddings
from ..core.session import DraftSettings, Followers, Session
from ..llamacpp.model import Model
from ..speculation import Speculation
from . import costs, store
from .start_vectors import ProbeChoice, StartVectors


class Resolved(NamedTuple):
    """A speculation with everything looked up."""

    settings: DraftSettings
    probe: str  # name of the masks' start vector, "" = no masks
    curve: costs.Curve | None  # that a mixed tree plans with


class Knowledge:
    """What is known of one model and this machine.

    Args:
        model: of the session.
        session: whose drafts rest on it; passes of its context are timed.
        table: the model's embeddings, None = no masks.
        setup: names what costs depend on besides the model.
    """

    def __init__(self, model: Model, session: Session, table: Embeddings | None, setup: str) -> None:
        self._model = model
        self._session = session
        self._setup = setup
        self._vectors = None if table is None else StartVectors(table, model.path)
        self._costs: costs.Costs | None = None
        self._texts: store.Texts = []  # that the model wrote for tuning
        if (followers := store.load_adjacency(model.path, model.n_vocab)) is not None:
            self.use_adjacency(followers)
        self.use_texts(store.load_texts(model.path, model.n_vocab))

    def prepare(self, speculation: Speculation, *, for_all: bool) -> None:
        """Finds out now what a generation with this speculation, or with any, would have to; may empty the KV cache."""
        if for_all or speculation.plans_with_measured_costs():
            self.measured_costs()

    def resolve(self, speculation: Speculation, prompt: Sequence[int], seed: int) -> Resolved:
        """What the core drafts with in one generation.

        Raises:
            ValueError: an array given as probe has another width than the model's embeddings.
        """
        probe, masks, update = "", np.zeros((0, self._model.n_embd), np.float32), 0.0
        if self._vectors is not None:
            probe, vector = self._vectors.choose(speculation.probe)
            masks = self._vectors.masks(speculation.masks, vector, prompt, seed)
            update = speculation.update_for(vector)
        curve, refine, change = None, False, 0.0
        if speculation.is_mixed():
            curve, refine, change = costs.curve_for(speculation, self.measured_costs)
        settings = DraftSettings(
            tree=speculation.tree if isinstance(speculation.tree, str) else "static",
            masks=masks,
            update=update,
            # Chosen rows adapt to the context; asked-for ones have been checked against it.
            block=min(speculation.rows(), self._model.n_ubatch()),
            widths=speculation.widths(),
            prune=speculation.prune,
            cost=curve,
            change=change,
            refine=refine,
            sources=speculation.sources if speculation.is_mixed() else (),
        )
        return Resolved(settings, probe, curve)

    # --- start vectors --------------------------------------------------------------------------------

    def probe_choice(self) -> ProbeChoice | None:
        """The scores of the start vectors of masks, None where there are no masks."""
        return None if self._vectors is None else self._vectors.choice

    # --- costs ----------------------------------------------------------------------------------------

    def measured_costs(self) -> costs.Costs:
        """Milliseconds of a pass by rows on this machine: as tuned, or measured now; empties the KV cache then."""
        if self._costs is None:
            self._costs = store.load_costs(self._model.path, self._setup)
        if self._costs is None:
            self._costs = self.measure_costs()
        return self._costs

    def measure_costs(self, seconds: float = costs.SECONDS) -> costs.Costs:
        """Measures the milliseconds of a pass by rows and plans with them from now on; empties the KV cache."""
        self._session.reset()
        n_rows = min(costs.MEASURED_ROWS, self._model.n_ubatch())
        self._costs = costs.measure(self._session.time_rows, n_rows, seconds)
        return self._costs

    # --- what tuning has the model say ----------------------------------------------------------------

    def rank_followers(self, tokens: Sequence[int]) -> Followers:
        """What the model ranks highest right after each token alone, by one pass; empties the KV cache."""
        self._session.reset()
        return self._session.rank_followers(self._model.vocab.bos, tokens)

    def most_followers(self) -> int:
        """Most tokens that one call of rank_followers takes."""
        return 1 if self._session.shape().is_chain else min(self._model.n_seq_max(), self._model.n_ubatch() - 1)

    def use_adjacency(self, followers: Followers) -> None:
        """Drafts with these followers of the whole vocabulary."""
        self._session.set_adjacency(followers)

    def use_texts(self, texts: store.Texts) -> None:
        """Drafts with the phrases of these texts, which the model wrote."""
        self._texts = texts
        self.teach()

    def teach(self) -> None:
        """Teaches the session the texts, when it is new or has forgotten all that it was taught."""
        for text in self._texts:
            self._session.learn_text(text)
