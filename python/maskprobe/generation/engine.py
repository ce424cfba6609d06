"""A loaded model with its session in the core and, where it can be probed, what its drafts rest on.

Knows what fits the model and its context; leaves prompts as text, streams and locking to others.
"""

from __future__ import annotations

from ..core.probing import open_session
from ..drafting.knowledge import Knowledge
from ..errors import UnsupportedModelError
from ..llamacpp.model import Model
from ..speculation import Speculation


class Engine:
    """Owns the model and the session.

    Args:
        model: which the engine closes.
        setup: names what costs depend on besides the model.
        cpu_kernels: whether its passes take our kernels on the CPU.

    Raises:
        ModelError: the session cannot be made.
    """

    def __init__(self, model: Model, setup: str, *, cpu_kernels: bool) -> None:
        self.model = model
        self.setup = setup
        opened = open_session(model, cpu_kernels=cpu_kernels)
        self.session = opened.session
        self.why_plain = opened.why_plain  # why the model cannot be probed, None if it can
        self.embedding_scale = opened.embedding_scale
        self._knowledge = None if opened.table is None else Knowledge(model, self.session, opened.table, setup)

    def close(self) -> None:
        """Frees everything; the engine is unusable after."""
        self.session.close()
        self.model.close()

    @property
    def knowledge(self) -> Knowledge:
        """What drafts rest on.

        Raises:
            UnsupportedModelError: the model cannot be probed.
        """
        if self._knowledge is None:
            raise self._unsupported()
        return self._knowledge

    def _unsupported(self) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.model.path.name} cannot be probed: {self.why_plain}")

    def check_fits(self, speculation: Speculation) -> None:
        """Checks a speculation against the model and its context.

        Raises:
            UnsupportedModelError: the model cannot be probed.
            ValueError: the blocks are too large for the context.
        """
        if self.why_plain is not None:
            raise self._unsupported()
        n_ubatch, n_seq_max = self.model.n_ubatch(), self.model.n_seq_max()
        if speculation.rows() > n_ubatch and speculation.budget != "auto":
            raise ValueError(
                f"a block of {speculation.rows()} rows does not fit n_ubatch={n_ubatch}; "
                "use a smaller block or load the model with larger n_batch and n_ubatch"
            )
        if speculation.leaves() > n_seq_max:
            raise ValueError(
                f"a block of {speculation.rows()} rows with masks={speculation.masks} has up to "
                f"{speculation.leaves()} leaves, but this context has {n_seq_max} sequences; "
                "load the model with that speculation"
            )

    def reset(self, *, learned: bool = False) -> None:
        """Forgets the KV cache; with learned, what generations have taught the drafts as well."""
        self.session.reset()
        if learned:
            self.session.forget()
            if self._knowledge is not None:
                self._knowledge.teach()
