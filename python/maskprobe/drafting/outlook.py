"""What drafts can gain on a machine, from what passes cost there.

A draft here is a chain of tokens, each right with the same chance if those before it were. Real drafts branch and
differ; the numbers say where a machine stands, `maskprobe tune` and `maskprobe bench` measure.
"""

from __future__ import annotations

import numpy as np

from .costs import Curve

# Chances of text that repeats what stands before it, and of ordinary text.
REPEATING, ORDINARY = 0.95, 0.6
_WORTH_IT = 1.05  # less is within what a machine varies by


def best_rows(curve: Curve, chance: float) -> tuple[int, float]:
    """The rows per pass that pay best where each drafted token is right with this chance, and the speed against plain.

    >>> best_rows(np.array([1.0, 1.5, 2.0]), 0.8)
    (3, 1.22)
    """
    tokens = np.cumsum(chance ** np.arange(len(curve)))
    speed = tokens / (curve / curve[0])
    best = int(speed.argmax())
    return best + 1, round(float(speed[best]), 2)


def least_chance(curve: Curve) -> float | None:
    """The chance from which on a draft gains anything, None if even certain ones do not."""
    chances = (percent / 100 for percent in range(1, 101))
    return next((chance for chance in chances if best_rows(curve, chance)[1] >= _WORTH_IT), None)


def in_words(curve: Curve) -> str:
    """What to expect of drafts, in a sentence or two."""
    second = f"a pass of two rows costs {curve[1] / curve[0]:.2g} plain passes"
    least = least_chance(curve)
    if least is None:
        return f"{second}: no draft pays, decoding stays plain and as fast as without maskprobe"
    repeating, ordinary = (best_rows(curve, chance)[1] for chance in (REPEATING, ORDINARY))
    where = "nearly everywhere" if least < 0.4 else "where they are likely" if least < 0.75 else "where nearly sure"
    gain = f"up to {ordinary:.1f} x" if ordinary >= _WORTH_IT else "little or nothing"
    return (
        f"{second}: drafts pay {where}, from a chance of {100 * least:.0f} % on; expect at most {repeating:.1f} x "
        f"plain speed in text that repeats, {gain} in ordinary text"
    )
