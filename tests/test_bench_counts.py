"""The guard on counts: it passes on its own baseline and names every loss."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("counts", BENCH / "counts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_losses_are_named(guard: ModuleType) -> None:
    baseline = json.loads((BENCH / "counts.json").read_text())
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
