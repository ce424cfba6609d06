"""Figures for Prometheus, under llama-server's names where it has them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

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
    (
        "llamacpp:n_decode",
        "decodes",
        1.0,
        "Passes by request, those of prompts and ended requests too.",
    ),
    ("llamacpp:spec_decode_num_draft_tokens", "draft_n", 1.0, "Tokens drafted."),
    ("llamacpp:spec_decode_num_accepted_tokens", "draft_n_accepted", 1.0, "Drafted tokens accepted."),
    ("maskprobe:passes", "passes", 1.0, "Forward passes after prompts; each commits the accepted drafts and one more."),
    ("maskprobe:rows", "rows", 1.0, "Rows of these passes."),
)
_RATES = (
    ("llamacpp:prompt_tokens_seconds", "prompt", "Average prompt throughput in tokens/s."),
    ("llamacpp:predicted_tokens_seconds", "predicted", "Average generation throughput in tokens/s."),
)
_OUTCOMES = ("finished", "failed", "dropped", "refused")


class Metrics(Collector):
    """Counts in any thread and is read in any other. Requests that were ended early add to n_decode only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._longest = 0
        self._load: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def watch(self, load: Callable[[], tuple[int, int]]) -> None:
        """Reads from here how many requests are processed and how many wait."""
        self._load = load

    def count(self, outcome: str) -> None:
        """Counts a request by its outcome."""
        with self._lock:
            self._requests[outcome] += 1

    def count_decode(self) -> None:
        """Counts a call of llama_decode."""
        with self._lock:
            self._sums["decodes"] += 1

    def add(self, timings: Mapping[str, float] | None) -> None:
        """Adds the timings of a generation; None, of a part that is not its last, adds nothing."""
        if timings is None:
            return
        with self._lock:
            self._sums.update({key: timings.get(key, 0) for _, key, _, _ in _COUNTERS})
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
        for name, key, unit, what in _COUNTERS:
            yield CounterMetricFamily(name, what, value=sums[key] * unit)
        for name, key, what in _RATES:
            seconds = sums[f"{key}_ms"] * 1e-3
            yield GaugeMetricFamily(name, what, value=sums[f"{key}_n"] / seconds if seconds else 0.0)
        yield GaugeMetricFamily("llamacpp:n_tokens_max", "Longest sequence, prompt and answer.", value=longest)
        yield GaugeMetricFamily("llamacpp:requests_processing", "Requests that the model works on.", value=processing)
        yield GaugeMetricFamily("llamacpp:requests_deferred", "Requests that wait.", value=deferred)
        family = CounterMetricFamily("maskprobe:requests", "Requests by what became of them.", labels=["outcome"])
        for outcome in _OUTCOMES:
            family.add_metric([outcome], requests[outcome])
        yield family
