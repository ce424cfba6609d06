"""What a pass costs by its rows: measured at load, or given.

A curve is an array [rows]: entry i is the cost of a pass of i + 1 rows.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from .speculation import Speculation

Curve = npt.NDArray[np.float32]

# Kernels work in blocks of 4 and 8 rows, so these are where costs step.
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 60)
SECONDS = 1.0  # at load
MEASURED_ROWS = _SIZES[-1]


def measure(time_rows: Callable[[int], float], n_rows: int, seconds: float = SECONDS) -> dict[int, float]:
    """Milliseconds by rows, for as many sizes as the time allows; always 1 and 2 rows.

    Args:
        time_rows: decodes so many rows and says how many ms it took.
        n_rows: most rows wanted.
        seconds: stop before this much time has passed.
    """
    sizes = [n for n in _SIZES if n <= n_rows]
    start = time.perf_counter()
    time_rows(1)  # the first call allocates
    # The fastest counts: whatever else the machine does only ever adds.
    curve = {1: min(time_rows(1) for _ in range(5))}
    for last, n in itertools.pairwise(sizes):
        left_ms = 1e3 * (seconds - (time.perf_counter() - start))
        ms = curve[last] * n / last + 3 * curve[1]  # a size costs at most what the last did per row
        if n > 2 and ms > left_ms:
            break
        tries = 3 if 8 * ms < left_ms else 1
        curve[n] = curve[1] * statistics.median(_relative_cost(time_rows, n) for _ in range(tries))
    return curve


def _relative_cost(time_rows: Callable[[int], float], n: int) -> float:
    """What a pass of n rows among plain ones adds, in plain passes: itself, and changing there and back."""
    time_rows(1)
    before, rows, after = time_rows(1), time_rows(n), time_rows(1)
    return max(rows + after - before, 0.1 * rows) / before


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
