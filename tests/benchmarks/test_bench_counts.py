"""The guard on counts: it passes on its own baseline and names every loss."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from bench_scripts import BENCH, bench_script


@pytest.fixture(scope="module")
def guard() -> ModuleType:
    return bench_script("counts")


@pytest.mark.parametrize("build", ["avx512", "avx2"])
def test_losses_are_named(guard: ModuleType, build: str) -> None:
    baseline = json.loads((BENCH / "counts.json").read_text())[build]
    assert set(baseline) == set(guard.SETTINGS)
    assert guard.losses(baseline, baseline) == []
    for name, factor in (("tokens_per_pass", 0.97), ("rows_per_token", 1.03), ("decode_calls", 1.03)):
        for setting in baseline:
            worse = json.loads(json.dumps(baseline))
            worse[setting][name] *= factor
            [line] = guard.losses(worse, baseline)
            assert line.startswith(f"{setting}: {name}")
            better = json.loads(json.dumps(baseline))
            better[setting][name] /= factor
            assert guard.losses(better, baseline) == []
    gone = {name: counts for name, counts in baseline.items() if name != "priced"}
    assert guard.losses(gone, baseline) == ["priced is not counted any more"]
