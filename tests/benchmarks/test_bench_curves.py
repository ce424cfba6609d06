"""Costs of a given machine are added up pass by pass."""

from __future__ import annotations

from bench_scripts import bench_script


def test_passes_are_added_up_by_the_curve() -> None:
    sums = bench_script("curves").Sums()
    costs = {1: 2.0, 2: 3.0, 4: 7.0}
    sums.add(12, {1: 4, 2: 2, 3: 1}, costs, looping=True)  # 8 + 6 + 5 for 12 tokens: 9.5 plain passes
    sums.add(3, {1: 2, 4: 1}, costs, looping=False)  # 4 + 7 for 3 tokens: 5.5
    sums.add(0, {}, costs, looping=False)
    assert list(sums.cells()) == ["1.500", "1.70", "1.000", "0.545", "1.833"]


def test_a_replayed_lookup_has_the_rows_of_its_drafts() -> None:
    frontier = bench_script("frontier")
    # Output 1 2 3 1 2 3 1: nothing to look up for 1 2 3 1, then 2 and 3 after (3, 1) come true with their bonus token.
    rows = frontier.replay(frontier.ngram_simple(2, 2), [9], [1, 2, 3, 1, 2, 3, 1])
    assert rows == [1, 1, 1, 1, 2]
