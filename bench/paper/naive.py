"""The published method built naively, to see what building the block costs: the same tree and the same guesses, but the
masks are decoded in a pass of their own, and every step makes its rows anew in Python.

It follows the core's greedy decoding of ``tree=(29,)`` with one mask, step by step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from maskprobe.bench.opponents import Usage, usage_of
from maskprobe.core.embeddings import FloatArray
from maskprobe.llama import MaskProbeLlama
from maskprobe.results import Generation, Stats
from maskprobe.speculation import Speculation

from ..rows import Row, RowContext
from .layers import CANDIDATES, candidates

_EVERYONE = range(1 + CANDIDATES)


class NaiveProbe:
    """Answers prompts greedily with the prompt's mean as mask, lambda 0.1. [ESP, §3]"""

    def __init__(self, llm: MaskProbeLlama) -> None:
        self._rows = RowContext(llm, n_sequences=len(_EVERYONE))
        self._update = np.float32(Speculation.paper(60).update_for("prompt-mean"))

    def usage(self) -> Usage:
        """What this process has used, in which it runs."""
        return usage_of(os.getpid())

    def close(self) -> None:
        """Frees the context."""
        self._rows.close()

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generation:
        """A greedy completion; ``passes`` counts the masks' too."""
        rows, begun = self._rows, time.perf_counter()
        self._decode_ms, self._n_passes, self._n_rows = 0.0, 0, 0
        rows.begin(prompt, _EVERYONE)
        start = time.perf_counter()
        mask: FloatArray = rows.start_vectors.masks(1, "prompt-mean", prompt, 1)[0]
        tokens = [int(rows.logits(-1).argmax())]
        mask = self._moved(mask, tokens[0])
        guesses: FloatArray | None = None  # logits of the last mask
        n_drafted = n_accepted = 0
        while not self._is_over(tokens, max_tokens):
            at = len(prompt) + len(tokens) - 1  # of the root
            drafts = [] if guesses is None else candidates(guesses, tokens[-1])
            if len(tokens) + 1 == max_tokens:
                drafts = []  # the core drafts nothing deeper than it is asked for
            new = self._verify(tokens[-1], drafts, at)
            n_drafted += len(drafts)
            n_accepted += len(new) - 1
            tokens += new
            if not self._is_over(tokens, max_tokens):
                # The mask sees the accepted tokens, but not the last of the new ones, in whose place it stands.
                guesses = self._probe(new[:-1], mask, at + 1)
            for token in new:
                mask = self._moved(mask, token)
        now = time.perf_counter()
        ended = rows.ends(tokens[-1])
        predicted_ms = 1e3 * (now - start)
        stats = Stats(
            prompt_n=len(prompt),
            prompt_ms=1e3 * (start - begun),
            predicted_n=len(tokens),
            predicted_ms=predicted_ms,
            passes=self._n_passes,
            rows=self._n_rows,
            draft_n=n_drafted,
            draft_n_accepted=n_accepted,
            decode_ms=self._decode_ms,
            host_ms=predicted_ms - self._decode_ms,
        )
        return Generation("", tokens[:-1] if ended else tokens, "stop" if ended else "length", stats)

    def _verify(self, root: int, drafts: Sequence[int], at: int) -> list[int]:
        """The root's successor and, if it was drafted, the one after; of the rows only the root's is kept."""
        batch = [Row(root, at, _EVERYONE)]
        batch += [Row(token, at + 1, [sequence]) for sequence, token in enumerate(drafts, start=1)]
        self._decode(batch)
        new = [int(self._rows.logits(0).argmax())]
        if new[0] in drafts and not self._rows.ends(new[0]):
            new.append(int(self._rows.logits(1 + drafts.index(new[0])).argmax()))
        self._rows.drop(at + 1)
        return new

    def _probe(self, accepted: Sequence[int], mask: FloatArray, at: int) -> FloatArray:
        """The mask's logits behind the accepted tokens, whose rows stay."""
        end = at + len(accepted)
        batch = [Row(token, at + i, _EVERYONE) for i, token in enumerate(accepted)]
        self._decode([*batch, Row(mask, end, [0])])
        self._rows.drop(end)
        return self._rows.logits(-1)

    def _decode(self, batch: Sequence[Row]) -> None:
        self._decode_ms += self._rows.decode(batch)
        self._n_passes += 1
        self._n_rows += len(batch)

    def _moved(self, mask: FloatArray, token: int) -> FloatArray:
        return mask + self._update * (self._rows.vector(token) - mask)

    def _is_over(self, tokens: Sequence[int], max_tokens: int) -> bool:
        return len(tokens) >= max_tokens or self._rows.ends(tokens[-1])
