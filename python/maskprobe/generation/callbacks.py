"""The user's own functions in a generation: logits processors and stopping criteria, called before every draw.

They are the first sampler of the chain. A token is drawn once, whatever was drafted, so that they see each prefix
once and in order, and drafts go on beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..llamacpp.samplers import Ids, Logits

# Takes the token ids so far, those of the prompt first, [n], and the logits of what follows, [n_vocab]. A logits
# processor gives the logits to go on with, a stopping criterion whether the text ends here.
Callback = Callable[[Any, Any], Any]


class Callbacks:
    """What the sampler that calls them does. An exception of theirs leaves no token, which ends the pass.

    Args:
        processors: each gets what the one before it gave.
        criteria: one of them is enough to end the text.
        prompt: token ids.
    """

    def __init__(self, processors: Sequence[Callback], criteria: Sequence[Callback], prompt: Sequence[int]) -> None:
        self._processors = processors
        self._criteria = criteria
        self._ids = np.array(prompt, np.intc)  # and room for more
        self._n_prompt = self._n = len(prompt)
        self._n_kept: int | None = None  # generated tokens in front of the end that a criterion has set
        self.error: BaseException | None = None  # raised by one of them

    def end_before(self, i: int) -> bool:
        """Whether a criterion has ended the text before the i-th generated token."""
        return self._n_kept is not None and i >= self._n_kept

    def accept(self, token: int) -> None:
        """Takes a token that was drawn."""
        if self._n == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros(self._n + 64, np.intc)])
        self._ids[self._n] = token
        self._n += 1

    def apply(self, _: Ids, logits: Logits) -> None:
        """Calls them for the next draw."""
        if self._n_kept is not None:
            return  # a draw of the same pass, behind the end
        try:
            ids, now = self._ids[: self._n], np.array(logits)
            if any(criterion(ids, now) for criterion in self._criteria):
                self._n_kept = self._n - self._n_prompt
            else:
                logits[:] = self._processed(ids, now)
        except BaseException as error:
            self.error = error
            logits[:] = -np.inf

    def _processed(self, ids: npt.NDArray[np.intc], logits: Logits) -> Logits:
        shape = logits.shape
        for processor in self._processors:
            logits = processor(ids, logits)
            if np.shape(logits) != shape:
                raise ValueError(f"a logits processor must return logits of shape {shape}, got {np.shape(logits)}")
        if np.isnan(logits).any():
            raise ValueError("a logits processor returned logits that are no numbers")
        return logits


def checked_callbacks(name: str, value: object) -> list[Callback]:
    """One function or several as a list, None = none."""
    functions: list[Any] = [] if value is None else list(value) if isinstance(value, Sequence) else [value]
    for function in functions:
        if not callable(function):
            raise TypeError(f"{name} must be a function of token ids and logits, or a list of them, got {function!r}")
    return functions
