"""What groups of runs add up to. Tokens, passes and times are pooled before they are divided."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .results import Run

_PACE_ANSWERS = 5


@dataclass(frozen=True)
class Summary:
    """Figures of a group of runs; None where nothing can be said."""

    n: int
    acceptance_length: float | None
    rows_per_pass: float | None
    tokens_per_second: float
    median_ratio: float | None
    pooled_ratio: float | None
    spread: tuple[float, float] | None  # quartiles of the ratios
    cpu_ms_per_token: float
    host_ms_per_pass: float | None
    rss_mb: float | None  # most after any answer
    n_equal: int
    n_compared: int


def summarize(runs: Sequence[Run]) -> Summary:
    """The figures of some runs of one setting."""

    def total(key: str) -> float:
        return float(sum(run.stats[key] for run in runs))

    ratios = [run.speed_ratio for run in runs if run.speed_ratio is not None]
    # Plain decoding's time for the same prompts, from each run's ratio to it.
    plain_ms = sum(run.stats["predicted_ms"] * run.speed_ratio for run in runs if run.speed_ratio is not None)
    compared = [run.equal_to_plain for run in runs if run.equal_to_plain is not None]
    passes = total("passes")
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else None
    return Summary(
        n=len(runs),
        acceptance_length=(total("predicted_n") - len(runs)) / passes if passes else None,
        rows_per_pass=total("rows") / passes if passes and total("rows") else None,
        tokens_per_second=1e3 * total("predicted_n") / max(1e-9, total("predicted_ms")),
        median_ratio=statistics.median(ratios) if ratios else None,
        pooled_ratio=plain_ms / total("predicted_ms") if ratios and total("predicted_ms") else None,
        spread=(quartiles[0], quartiles[2]) if quartiles else None,
        cpu_ms_per_token=sum(run.cpu_ms for run in runs) / max(1.0, total("predicted_n")),
        host_ms_per_pass=total("host_ms") / passes if passes and total("decode_ms") else None,
        rss_mb=max((run.rss_mb for run in runs), default=0.0) or None,
        n_equal=sum(compared),
        n_compared=len(compared),
    )


def pace(runs: Sequence[Run], plain: Sequence[Run]) -> float | None:
    """What a one-row pass takes a process, over what it takes plain decoding in ours: median over the answers that
    took one row a pass throughout; None where there are fewer than five.

    Processes with the same code and settings differ by several percent here (where their memory lies), which is no
    merit of a method.
    """
    ms_of_plain = {run.question_id: run.stats["predicted_ms"] / run.stats["passes"] for run in plain}
    ratios = [
        run.stats["predicted_ms"] / run.stats["passes"] / ms_of_plain[run.question_id]
        for run in runs
        if run.stats["passes"] and run.stats["rows"] == run.stats["passes"] and run.question_id in ms_of_plain
    ]
    return statistics.median(ratios) if len(ratios) >= _PACE_ANSWERS else None


def reliability(runs: Sequence[Run]) -> list[tuple[int, float, float]]:
    """By tenth of the expected probability: drafted tokens, how likely they were said to be, how many came true."""
    kept = [run.stats["reliability"] for run in runs if run.stats.get("reliability")]
    rows = []
    for classes in zip(*kept, strict=True):
        n, n_true, said = (sum(column) for column in zip(*classes, strict=True))
        rows.append((n, said / n if n else 0.0, n_true / n if n else 0.0))
    return rows


def acceptance_by_depth(runs: Sequence[Run], n_depths: int) -> list[float]:
    """Share of passes that accepted more than d drafted tokens, by d."""
    passes = sum(run.stats["passes"] for run in runs)
    accepted = [run.stats["accepted_per_depth"] for run in runs]
    totals = [sum(depths[d] for depths in accepted if d < len(depths)) for d in range(n_depths)]
    return [n / passes if passes else 0.0 for n in totals]
