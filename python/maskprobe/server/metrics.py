"""Figures for Prometheus, under llama-server's names where it has them."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Name without _total, the key in timings, its unit in the name's, what it is.
_COUNTERS = (
    ("llamacpp:prompt_tokens", "prompt_n", 1.0, "Prompt tokens decoded, without cached ones."),
    ("llamacpp:prompt_tokens_cached", "cache_n", 1.0, "Prompt tokens taken from the KV cache."),
    ("llamacpp:prompt_seconds", "prompt_ms", 1e-3, "Time spent on prompts."),
    ("llamacpp:tokens_predicted", "predicted_n", 1.0, "Tokens generated."),
    ("llamacpp:tokens_predicted_seconds", "predicted_ms", 1e-3, "Time spent on generating."),
    ("llamacpp:spec_decode_num_draft_tokens", "draft_n", 1.0, "Tokens drafted."),
    ("llamacpp:spec_decode_num_accepted_tokens", "draft_n_accepted", 1.0, "Drafted tokens accepted."),
    ("maskprobe:passes", "passes", 1.0, "Forward passes after prompts; each commits the accepted drafts and one more."),
    ("maskprobe:rows", "rows", 1.0, "Rows of these passes."),
)
# The same for each slot.
_SLOT_COUNTERS = (
    ("maskprobe:slot_prompt_tokens", "prompt_n", "Prompt tokens decoded in a slot, without cached ones."),
    ("maskprobe:slot_tokens_predicted", "predicted_n", "Tokens generated in a slot."),
    ("maskprobe:slot_passes", "passes", "Forward passes after prompts that a slot took part in."),
    ("maskprobe:slot_rows", "rows", "Rows that a slot had in these passes."),
    ("maskprobe:slot_draft_tokens", "draft_n", "Tokens drafted in a slot."),
    ("maskprobe:slot_accepted_tokens", "draft_n_accepted", "Drafted tokens accepted in a slot."),
)
_RATES = (
    ("llamacpp:prompt_tokens_seconds", "prompt", "Average prompt throughput in tokens/s."),
    ("llamacpp:predicted_tokens_seconds", "predicted", "Average generation throughput in tokens/s."),
)
_OUTCOMES = ("finished", "failed", "dropped", "refused")


class Metrics(Collector):
    """Counts in any thread and is read in any other. Requests that were ended early add to n_decode only.

    Args:
        n_passes: tells the passes so far; those that requests share count once.
    """

    def __init__(self, n_passes: Callable[[], int] = lambda: 0) -> None:
        self._n_passes = n_passes
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._by_slot: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._n_taken = 0
        self._requests: Counter[str] = Counter()
        self._longest = 0
        self._load: Callable[[], tuple[Sequence[bool], int]] = lambda: ((), 0)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def watch(self, load: Callable[[], tuple[Sequence[bool], int]]) -> None:
        """Reads from here which slots process requests, and how many wait."""
        self._load = load

    def count(self, outcome: str) -> None:
        """Counts a request by its outcome."""
        with self._lock:
            self._requests[outcome] += 1

    def count_pass(self) -> None:
        """Counts a request that takes part in a pass."""
        with self._lock:
            self._n_taken += 1

    def add(self, timings: Mapping[str, float], slot: int) -> None:
        """Adds the timings of a generation in a slot."""
        with self._lock:
            self._sums.update({key: timings.get(key, 0) for _, key, _, _ in _COUNTERS})
            self._by_slot[slot].update({key: timings.get(key, 0) for _, key, _ in _SLOT_COUNTERS})
            length = timings["cache_n"] + timings["prompt_n"] + timings["predicted_n"]
            self._longest = max(self._longest, int(length))

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All figures, as prometheus_client asks for them."""
        processing, deferred = self._load()
        with self._lock:
            sums, requests, longest = self._sums.copy(), self._requests.copy(), self._longest
            by_slot = [self._by_slot[i].copy() for i in range(len(processing))]
            n_passes, n_taken = self._n_passes(), self._n_taken
        for name, key, unit, what in _COUNTERS:
            yield CounterMetricFamily(name, what, value=sums[key] * unit)
        for name, key, what in _RATES:
            seconds = sums[f"{key}_ms"] * 1e-3
            yield GaugeMetricFamily(name, what, value=sums[f"{key}_n"] / seconds if seconds else 0.0)
        yield GaugeMetricFamily("llamacpp:n_tokens_max", "Longest sequence, prompt and answer.", value=longest)
        yield CounterMetricFamily("llamacpp:n_decode", "Passes, those of prompts and ended requests too.", n_passes)
        what = "Average number of requests that share a pass."
        yield GaugeMetricFamily("llamacpp:n_busy_slots_per_decode", what, value=n_taken / max(n_passes, 1))
        what = "Requests that the model works on."
        yield GaugeMetricFamily("llamacpp:requests_processing", what, value=sum(processing))
        yield GaugeMetricFamily("llamacpp:requests_deferred", "Requests that wait.", value=deferred)
        family = CounterMetricFamily("maskprobe:requests", "Requests by what became of them.", labels=["outcome"])
        for outcome in _OUTCOMES:
            family.add_metric([outcome], requests[outcome])
        yield family
        yield from _of_slots(processing, by_slot)


def _of_slots(processing: Sequence[bool], by_slot: Sequence[Counter[str]]) -> Iterator[Metric]:
    for name, key, what in _SLOT_COUNTERS:
        counter = CounterMetricFamily(name, what, labels=["slot"])
        for i, sums in enumerate(by_slot):
            counter.add_metric([str(i)], sums[key])
        yield counter
    gauge = GaugeMetricFamily("maskprobe:slot_processing", "Whether a slot has a request.", labels=["slot"])
    for i, is_busy in enumerate(processing):
        gauge.add_metric([str(i)], is_busy)
    yield gauge
