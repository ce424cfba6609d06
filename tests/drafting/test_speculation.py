"""Speculation settings say what is wrong when they are made."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest

from maskprobe import Speculation
from maskprobe.drafting.costs import Costs, curve_for, describe, interpolate, measure
from maskprobe.notation import parse_speculation


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"masks": 5}, ValueError, "masks must be in 0..4, got 5"),
        ({"masks": 0, "tree": (4,)}, ValueError, "masks must be in 1..4, got 0"),
        ({"masks": 1.0}, TypeError, "masks must be an integer"),
        ({"tree": "bushy"}, ValueError, "got 'bushy'"),
        ({"tree": 14}, TypeError, "got 14"),
        ({"tree": ()}, ValueError, "0 depths"),
        ({"tree": (4, 2)}, ValueError, "2 depths, but masks=1"),
        ({"tree": (0,)}, ValueError, "tree width must be in 1..255, got 0"),
        ({"tree": (2.5,)}, TypeError, "tree width"),
        ({"tree": (14,), "block": 29}, ValueError, "block=29 is too small.*needs 30 rows"),
        ({"tree": "dynamic", "masks": 3, "block": 3}, ValueError, "need 4 rows"),
        ({"probe": "guess"}, ValueError, "unknown probe 'guess'; choose one of auto, prompt-mean"),
        ({"probe": [1.0, math.nan]}, ValueError, "NaN"),
        ({"probe": np.zeros((2, 8))}, ValueError, r"\[n_embd\] or \[1, n_embd\], got \[2, 8\]"),
        ({"probe": object()}, TypeError, "probe must be a name or a numeric array"),
        ({"update": 1.5}, ValueError, "update must be in 0..1, got 1.5"),
        ({"update": math.nan}, ValueError, "update"),
        ({"update": "fast"}, TypeError, "update"),
        ({"prune": 1}, TypeError, "prune"),
        ({"budget": 0}, ValueError, "budget must be in 1.*got 0"),
        ({"budget": "large"}, ValueError, "budget must be"),
        ({"budget": 8, "tree": (4,)}, ValueError, "budget=8 needs the mixed tree"),
        ({"cost_curve": {}}, TypeError, "cost_curve"),
        ({"cost_curve": {1: -1.0}}, ValueError, "cost must be at least 0, got -1"),
        ({"cost_curve": {1: 0.0}}, ValueError, "above 0"),
        ({"cost_curve": {0: 1.0}}, ValueError, "rows of cost_curve"),
        ({"cost_curve": {1: 1.0}, "tree": "dynamic"}, ValueError, "cost_curve needs the mixed tree"),
    ],
)
def test_bad_settings(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Speculation(**options)


def test_defaults() -> None:
    default = Speculation()
    assert (default.tree, default.budget, default.masks, default.rows(), default.probe) == (
        "mixed",
        "auto",
        1,
        60,
        "auto",
    )
    assert (Speculation(tree=(14,)).block, Speculation(tree=(14,)).probe) == (30, "table-mean")
    assert Speculation(tree="dynamic").block == 30
    assert Speculation(masks=3, tree=(7, 5, 2)).block == 60
    assert Speculation(tree=[29]).tree == (29,)
    assert Speculation(budget=10).rows() == 10


@pytest.mark.parametrize(("block", "width"), [(10, 4), (30, 14), (60, 29)])
def test_the_papers_settings(block: int, width: int) -> None:
    paper = Speculation.paper(block)
    assert (paper.masks, paper.tree, paper.block, paper.probe, paper.update) == (1, (width,), block, "prompt-mean", 0.1)
    with pytest.raises(ValueError, match="got 20"):
        Speculation.paper(20)


def test_settings_are_frozen() -> None:
    vector = np.zeros(8, np.float32)
    speculation = Speculation(tree=(4,), probe=vector)
    with pytest.raises(dataclasses.FrozenInstanceError):
        speculation.masks = 2  # type: ignore[misc]
    vector[0] = 7.0
    assert isinstance(speculation.probe, np.ndarray)
    assert speculation.probe[0] == 0.0


def test_notation() -> None:
    parsed = parse_speculation("masks=2,tree=15x4, probe=prompt-mean,update=0.2,prune=false")
    assert (parsed.masks, parsed.tree, parsed.probe, parsed.update, parsed.prune) == (
        2,
        (15, 4),
        "prompt-mean",
        0.2,
        False,
    )
    assert parse_speculation("").tree == "mixed"
    assert parse_speculation("paper-60").block == 60
    assert parse_speculation("tree=dynamic,block=40").block == 40
    assert parse_speculation("budget=10").budget == 10
    assert dict(parse_speculation("cost=1:1/8:1.5").cost_curve or {}) == {1: 1.0, 8: 1.5}
    for text in ("masks=two", "shape=round", "tree=4xx2", "paper-x", "cost=1", "prune=maybe"):
        with pytest.raises(ValueError, match=text.split("=")[0].split("-")[0] if "paper" not in text else "block"):
            parse_speculation(text)


def test_curves() -> None:
    np.testing.assert_allclose(interpolate({1: 10, 3: 14, 5: 14}, 7), [10, 12, 14, 14, 14, 14, 14])
    np.testing.assert_allclose(interpolate({2: 5}, 3), [5, 5, 5])
    np.testing.assert_allclose(interpolate({1: 1, 2: 3}, 4), [1, 3, 5, 7])

    def never() -> Costs:
        raise AssertionError("nothing is measured here")

    curve, refine, change = curve_for(Speculation(budget=5), never)
    assert (curve.tolist(), refine, change) == ([1.0] * 5, False, 0.0)
    curve, refine, change = curve_for(Speculation(cost_curve={1: 2, 60: 2}), never)
    assert (len(curve), curve.max(), refine, change) == (60, 2.0, False, 0.0)
    curve, refine, change = curve_for(Speculation(), lambda: Costs({1: 8.0, 2: 16.0}, 0.5))
    assert (curve[:3].tolist(), refine, change) == ([8.0, 16.0, 24.0], True, 0.5)
    assert "a second row must bring 1.00 tokens" in describe(curve, 1 / 8)


def test_measuring_keeps_to_its_time() -> None:
    asked: list[int] = []

    def slow(n: int) -> float:
        asked.append(n)
        return 400.0 * n  # ms, as it says

    assert set(measure(slow, 60, seconds=1.0)) == {1, 2}
    assert max(asked) == 2
    quick: list[int] = []
    curve = measure(lambda n: quick.append(n) or 0.01 * n, 60, seconds=5.0)  # type: ignore[func-returns-value]
    assert list(curve) == [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 60]
    assert curve[8] == pytest.approx(0.08)
    assert len(quick) < 550
    assert max(measure(lambda n: 0.01, 10)) == 8


def test_what_a_device_compiles_at_first_is_no_cost() -> None:
    seen: set[int] = set()

    def compiling(n: int) -> float:
        first = n not in seen
        seen.add(n)
        return 0.01 * n + (5.0 if first else 0.0)

    assert measure(compiling, 4, seconds=5.0) == pytest.approx({1: 0.01, 2: 0.02, 3: 0.03, 4: 0.04})
    assert measure(compiling, 4, seconds=5.0).change == 0.0


def test_what_takes_long_to_compile_is_not_begun() -> None:
    clock = [0.0]
    seen: set[int] = set()

    def compiling(n: int) -> float:
        ms = 1.0 * n + (0.0 if n in seen else 400.0)
        seen.add(n)
        clock[0] += ms / 1e3
        return ms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskprobe.drafting.costs.time.perf_counter", lambda: clock[0])
        assert measure(compiling, 60, seconds=1.0) == {1: 1.0, 2: 2.0}
        assert clock[0] < 1.0
        assert seen == {1, 2}
        seen.clear()
        assert set(measure(compiling, 60, seconds=2.5)) == {1, 2, 3, 4, 8, 16}


def test_neither_disturbances_nor_lucky_passes_count_when_measuring() -> None:
    rng = random.Random(1)

    def disturbed(n: int) -> float:
        return (0.01 + 0.002 * (n - 1)) * rng.choices((0.3, 1.0, 5.0), (1, 5, 1))[0]

    curve = measure(disturbed, 60, seconds=5.0)
    for n, ms in curve.items():
        assert ms == pytest.approx(0.01 + 0.002 * (n - 1))


def test_another_number_of_rows_is_a_cost_of_its_own() -> None:
    last = [1]

    def with_changes(n: int) -> float:
        ms = 0.01 * n + (0.004 if last[0] != n else 0.0)
        last[0] = n
        return ms

    curve = measure(with_changes, 4, seconds=5.0)
    assert curve == pytest.approx({1: 0.01, 2: 0.02, 3: 0.03, 4: 0.04})
    assert curve.change == pytest.approx(0.004)


def test_more_rows_are_never_said_to_cost_less() -> None:
    costs = {1: 0.01, 2: 0.03, 3: 0.04, 4: 0.09, 5: 0.08, 6: 0.07, 7: 0.06, 8: 0.05}
    assert measure(lambda n: costs[n], 8, seconds=5.0) == {1: 0.01, 2: 0.03, 3: 0.04} | dict.fromkeys(range(4, 9), 0.05)
