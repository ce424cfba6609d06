"""What a pass costs by its rows, measured at load or given, and what drafts can gain at that price.

A curve is an array [rows]: entry i is the cost of a pass of i + 1 rows. The outlook takes a draft for a chain of
tokens, each right with the same chance if those before it were. Real drafts branch and differ; it says where a machine
stands, `maskprobe tune` and `maskprobe bench` measure.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt

from ..speculation import Speculation

Curve = npt.NDArray[np.float32]

# Kernels work in blocks of 4 and 8 rows, so there costs step; sizes between may be dearer than the next larger one. In
# the order in which they are wanted.
_SIZES = (2, 4, 8, 16, 3, 6, 5, 7, 12, 32, 60)
SECONDS = 1.0  # at load
_MOST_TURNS = 12
MEASURED_ROWS = max(_SIZES)

# Chances of text that repeats what stands before it, and of ordinary text.
REPEATING, ORDINARY = 0.95, 0.6
WORTH_IT = 1.05  # less is within what a machine varies by


class Costs(dict[int, float]):
    """Milliseconds of a pass by rows, among passes of as many.

    Args:
        ms: by rows.
        change: what a pass takes more after one of another number of rows, for which llama.cpp makes its graph anew.
    """

    def __init__(self, ms: Mapping[int, float], change: float = 0.0) -> None:
        super().__init__(ms)
        self.change = change


def measure(time_rows: Callable[[int], float], n_rows: int, seconds: float = SECONDS) -> Costs:
    """Milliseconds by rows, for as many sizes as the time allows; always 1 and 2 rows.

    Each size is timed twice after a plain pass: the first of them also costs the change. A size's very first pass
    counts for nothing, as devices compile what it needs. All sizes take turns while there is time, and medians count:
    fastest passes are not what is usual, of one row least of all where memory is what limits.

    Args:
        time_rows: decodes so many rows and says how many ms it took.
        n_rows: most rows wanted.
        seconds: no pass of more than two rows begins that may end after this much time.
    """
    start = time.perf_counter()
    first = time_rows(1)  # allocates
    plain = [time_rows(1), time_rows(1)]
    beginning = max(0.0, first - median(plain))  # most that a size's first pass has taken more than its next
    changes: list[float] = []  # what the first pass after one of another size took more
    passes: dict[int, list[float]] = {}

    def fits(n: int) -> bool:
        left_ms = 1e3 * (seconds - (time.perf_counter() - start))
        surplus = 0.0 if n in passes else beginning
        return surplus + 2 * (_guess(n, median(plain), passes) + median(plain)) < left_ms

    sizes = [n for n in _SIZES if n <= n_rows]
    for turn in range(_MOST_TURNS):
        for n in sizes:
            if fits(n) or (n == 2 and turn == 0):
                first, second = time_rows(n), time_rows(n)
                back = time_rows(1)
                plain.append(time_rows(1))
                changes.append(back - plain[-1])
                if n in passes:
                    changes.append(first - second)
                else:
                    beginning = max(beginning, first - second)
                passes.setdefault(n, []).append(second)
        # A size that did not fit in the first turn never will.
        sizes = [n for n in sizes if n in passes and fits(n)]
        if not sizes:
            break
    curve = {n: median(ms) for n, ms in passes.items()}
    return Costs({1: median(plain)} | _never_cheaper_with_more(curve), max(0.0, median(changes)) if changes else 0.0)


def _guess(n: int, plain: float, passes: Mapping[int, Sequence[float]]) -> float:
    """Milliseconds that n rows may take: as before, or per row at most what fewer of them took."""
    if n in passes:
        return median(passes[n])
    rows = max((fewer for fewer in passes if fewer < n), default=1)
    return (median(passes[rows]) if rows in passes else plain) * n / rows


def _never_cheaper_with_more(curve: Mapping[int, float]) -> dict[int, float]:
    """Costs that do not fall as rows grow: a pass can always carry rows that nobody reads."""
    lowest, result = math.inf, {}
    for n in sorted(curve, reverse=True):
        lowest = min(lowest, curve[n])
        result[n] = lowest
    return dict(sorted(result.items()))


def interpolate(points: Mapping[int, float], n_rows: int) -> Curve:
    """The curve through the points for 1..n_rows rows; beyond the last point it goes on as the last two say."""
    rows = np.array(sorted(points), dtype=np.float64)
    costs = np.array([points[int(r)] for r in rows])
    wanted = np.arange(1, n_rows + 1, dtype=np.float64)
    curve = np.interp(wanted, rows, costs)
    if len(rows) > 1:
        slope = max(0.0, (costs[-1] - costs[-2]) / (rows[-1] - rows[-2]))
        curve += slope * np.maximum(0.0, wanted - rows[-1])
    return np.asarray(curve, dtype=np.float32)


def flat(n_rows: int) -> Curve:
    """A pass costs the same whatever its rows."""
    return np.ones(n_rows, dtype=np.float32)


def curve_for(speculation: Speculation, measured: Callable[[], Costs]) -> tuple[Curve, bool, float]:
    """The curve a speculation plans with, whether passes may correct it, and what another number of rows costs."""
    n_rows = speculation.rows()
    if speculation.cost_curve is not None:
        return interpolate(speculation.cost_curve, n_rows), False, 0.0
    if isinstance(speculation.budget, int):
        return flat(n_rows), False, 0.0
    costs = measured()
    return interpolate(costs, n_rows), True, costs.change


def plain_pass(curve: Curve, change: float, rows: Sequence[int], total_ms: float) -> float:
    """Milliseconds that a pass of one row would have taken among passes of these rows, which took so long in all.

    The curve says how passes compare, measured behind a short prompt; what these took says how slow all of them have
    become since. More rows never cost less, so it is at most the mean of these, whatever was measured. 0 without any.
    """
    if not rows:
        return 0.0
    changes = sum(before != after for before, after in pairwise(rows))
    expected = float(curve[np.minimum(rows, len(curve)) - 1].sum()) + change * changes
    return min(float(curve[0]) * total_ms / expected, total_ms / len(rows))


def describe(curve: Curve, price: float) -> str:
    """Why passes have the rows they have, in one line."""
    sizes = [n for n in (2, 4, 8, 16, 32, 60) if n <= len(curve)]
    relative = "/".join(f"{curve[n - 1] / curve[0]:.2g}" for n in sizes)
    if not sizes:
        return "one row at most"
    second = price * float(curve[1] - curve[0])
    return f"{'/'.join(map(str, sizes))} rows cost {relative} plain passes; a second row must bring {second:.2f} tokens"


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
    return next((chance for chance in chances if best_rows(curve, chance)[1] >= WORTH_IT), None)


def outlook(curve: Curve) -> str:
    """What to expect of drafts, in a sentence or two."""
    second = f"a pass of two rows costs {curve[1] / curve[0]:.2g} plain passes"
    least = least_chance(curve)
    if least is None:
        return f"{second}: no draft pays, decoding stays plain and as fast as without maskprobe"
    repeating, ordinary = (best_rows(curve, chance)[1] for chance in (REPEATING, ORDINARY))
    where = "nearly everywhere" if least < 0.4 else "where they are likely" if least < 0.75 else "where nearly sure"
    gain = f"up to {ordinary:.1f} x" if ordinary >= WORTH_IT else "little or nothing"
    return (
        f"{second}: drafts pay {where}, from a chance of {100 * least:.0f} % on; expect at most {repeating:.1f} x "
        f"plain speed in text that repeats, {gain} in ordinary text"
    )
