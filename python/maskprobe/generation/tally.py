"""What one generation has committed so far, and the figures that this makes with the core's own sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..core.session import Pass
from ..results import Stats


@dataclass
class Tally:
    """Counts while a generation runs; fields are named as in :class:`~maskprobe.Stats`."""

    prompt_n: int = 0
    prompt_done: int = 0  # of these, so far
    cache_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    probe: str = ""
    choice: str = ""
    plain_pass_ms: float = 0.0
    stopped_by: str = ""
    accepted: list[int] = field(default_factory=list)  # drafted tokens accepted, per pass
    rows: list[int] = field(default_factory=list)  # per pass
    draft_n: int = 0

    def add(self, passed: Pass) -> None:
        """Counts a pass."""
        self.accepted.append(passed.n_accepted)
        self.rows.append(passed.n_rows)
        self.draft_n += passed.n_drafted

    def so_far(self) -> dict[str, float]:
        """The figures that are known while it runs, named as in :meth:`maskprobe.Stats.timings`."""
        n_passes = len(self.accepted)
        return {
            "cache_n": self.cache_n,
            "prompt_n": self.prompt_done,
            "predicted_n": self.predicted_n,
            "draft_n": self.draft_n,
            "draft_n_accepted": sum(self.accepted),
            "passes": n_passes,
            "rows": sum(self.rows),
            "acceptance_length": (self.predicted_n - 1) / n_passes if n_passes else 1.0,
        }

    def stats(self, totals: Any) -> Stats:
        """The figures, with those of the core (an mp_totals)."""
        accepted = self.accepted
        said = zip(totals.said_n, totals.said_n_true, totals.said_sum, strict=True)
        return Stats(
            prompt_n=self.prompt_n,
            cache_n=self.cache_n,
            prompt_ms=self.prompt_ms,
            predicted_n=self.predicted_n,
            predicted_ms=self.predicted_ms,
            passes=len(accepted),
            rows=totals.n_rows,
            passes_by_rows=tuple(sorted(Counter(self.rows).items())),
            rows_again=totals.n_again,
            draft_n=self.draft_n,
            draft_n_accepted=sum(accepted),
            accepted_per_depth=tuple(sum(n > d for n in accepted) for d in range(max(accepted, default=0))),
            decode_ms=totals.decode_ms,
            host_ms=max(0.0, self.predicted_ms - totals.decode_ms),
            kv_scans=totals.n_kv_scans,
            expected_n=totals.expected,
            probe=self.probe,
            probe_n=totals.n_probed,
            probe_logp=totals.probe_logp,
            plain_pass_ms=self.plain_pass_ms,
            choice=self.choice,
            stopped_by=self.stopped_by,
            reliability=tuple(said) if any(totals.said_n) else (),
        )
