"""What a pass costs by its rows: measured at load, or given.

A curve is an array [rows]: entry i is the cost of a pass of i + 1 rows.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .speculation import Speculation

Curve = npt.NDArray[np.float32]

# Kernels work in blocks of 4 and 8 rows, so these are where costs step.
_SIZES = (2, 4, 8, 16, 32, 60)
SECONDS = 1.0  # at load
MEASURED_ROWS = _SIZES[-1]


def measure(time_rows: Callable[[int], float], n_rows: int, seconds: float = SECONDS) -> dict[int, float]:
    """Milliseconds by rows, for as many sizes as the time allows; always 1 and 2 rows.

    A pass of n rows among plain ones costs itself, and what changing back adds to the plain pass after it. Each part is
    measured again and again while there is time, and the fastest counts: whatever else the machine does only ever
    adds.

    Args:
        time_rows: decodes so many rows and says how many ms it took.
        n_rows: most rows wanted.
        seconds: stop before this much time has passed.
    """
    start = time.perf_counter()
    time_rows(1)  # the first call allocates
    plain = min(time_rows(1) for _ in range(3))
    fastest: dict[int, float] = {}  # passes of n rows
    back: dict[int, float] = {}  # plain passes right after them

    def left_ms() -> float:
        return 1e3 * (seconds - (time.perf_counter() - start))

    sizes = [n for n in _SIZES if n <= n_rows]
    for turn in itertools.count():
        fitting = [n for n in sizes if (n == 2 and turn == 0) or _guess(n, plain, fastest) + 2 * plain < left_ms()]
        if not fitting or turn >= _MOST_TURNS:
            break
        for n in fitting:
            if (n > 2 or turn > 0) and _guess(n, plain, fastest) + 2 * plain > left_ms():
                continue
            fastest[n] = min(time_rows(n), fastest.get(n, math.inf))
            back[n] = min(time_rows(1), back.get(n, math.inf))
            plain = min(plain, time_rows(1))
        # A size that did not fit in the first turn never will, nor do larger ones.
        sizes = [n for n in sizes if n in fastest]
    curve = {n: fastest[n] + max(0.0, back[n] - plain) for n in fastest}
    return {1: plain} | _never_cheaper_with_more(curve)


_MOST_TURNS = 12


def _guess(n: int, plain: float, fastest: Mapping[int, float]) -> float:
    """Milliseconds that n rows may take: as before, or per row at most what fewer of them took."""
    if n in fastest:
        return fastest[n]
    rows, ms = max(fastest.items(), default=(1, plain))
    return ms * n / rows


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


def curve_for(speculation: Speculation, measured: Callable[[], Mapping[int, float]]) -> tuple[Curve, bool]:
    """The curve a speculation plans with, and whether passes may correct it."""
    n_rows = speculation.rows()
    if speculation.cost_curve is not None:
        return interpolate(speculation.cost_curve, n_rows), False
    if isinstance(speculation.budget, int):
        return flat(n_rows), False
    return interpolate(measured(), n_rows), True


def describe(curve: Curve, price: float) -> str:
    """Why passes have the rows they have, in one line."""
    sizes = [n for n in (2, 4, 8, 16, 32, 60) if n <= len(curve)]
    relative = "/".join(f"{curve[n - 1] / curve[0]:.2g}" for n in sizes)
    if not sizes:
        return "one row at most"
    second = price * float(curve[1] - curve[0])
    return f"{'/'.join(map(str, sizes))} rows cost {relative} plain passes; a second row must bring {second:.2f} tokens"
