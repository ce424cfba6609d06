"""canitoolcall's recorded outputs of nine families of models: what docs/lab/tool-calls.md says holds."""

from __future__ import annotations

from collections import Counter

import pytest
from bench.tool_calls import judge
from canitoolcall.fixtures import load_families, load_fixtures
from canitoolcall.results import Status

# family: (hard passes, hard and soft ones) of version 0.1.1, at least
PASSES = {
    "deepseek": (85, 85),
    "gemma4": (47, 48),
    "glm": (51, 51),
    "gpt-oss": (50, 50),
    "kimi": (48, 48),
    "llama": (34, 34),
    "mistral": (47, 47),
    "qwen3-hermes": (50, 50),
    "qwen3-xml": (54, 54),
}


@pytest.mark.parametrize("family", PASSES)
def test_passes(family: str) -> None:
    families = load_families()
    counts: Counter[Status] = Counter()
    for fixture in load_fixtures(families=[family]):
        status, rows = judge(fixture, families[family])
        counts[status] += 1
        split = [row for row in rows if row.check in ("stream_equals_nonstream", "split_invariance")]
        assert not split, (fixture.id, split)
    hard, both = PASSES[family]
    assert counts[Status.PASS] >= hard
    assert counts[Status.PASS] + counts[Status.SOFT_PASS] >= both
