"""Rows are spent where they earn their cost: counted, never timed."""

from __future__ import annotations

import dataclasses

from maskprobe import MaskProbeLlama, Speculation, Stats

N = 64


def answer(llm: MaskProbeLlama, prompt: str, speculation: Speculation | bool) -> Stats:
    llm.reset(learned=True)
    if isinstance(speculation, Speculation):  # whatever other tests have found out about start vectors
        speculation = dataclasses.replace(speculation, probe="table-mean")
    return llm.generate(prompt, max_tokens=N, temperature=0.0, speculate=speculation, cache_prompt=False).stats


def test_dear_rows_are_left_alone(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    # The second row doubles the cost and every further one adds as much: nothing can pay.
    dear = Speculation(cost_curve={1: 1.0, 2: 2.0, 60: 60.0})
    for prompt in prompts.values():
        stats = answer(llm, prompt, dear)
        assert stats.rows <= 1.02 * (stats.predicted_n - 1)


def test_free_rows_are_used(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    free = Speculation(cost_curve={1: 1.0, 60: 1.0})
    tokens = passes = 0
    for prompt in prompts.values():
        stats = answer(llm, prompt, free)
        tokens, passes = tokens + stats.predicted_n - 1, passes + stats.passes
        assert stats.rows_per_pass > 20
    assert tokens / passes > 1.6


def test_more_rows_bring_more_tokens(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    lengths = []
    for budget in (1, 2, 4, 10):
        stats = [answer(llm, prompt, Speculation(budget=budget)) for prompt in prompts.values()]
        assert all(s.rows <= budget * s.passes for s in stats)
        lengths.append(sum(s.predicted_n - 1 for s in stats) / sum(s.passes for s in stats))
    assert lengths[0] == 1.0
    assert lengths == sorted(lengths)
    assert lengths[3] > 1.3


def test_rows_follow_their_price(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    rows = []
    for slope in (0.02, 0.2, 0.6, 1.0):
        curve = {1: 1.0, 60: 1.0 + 59 * slope}
        stats = [answer(llm, prompt, Speculation(cost_curve=curve)) for prompt in prompts.values()]
        rows.append(sum(s.rows for s in stats) / sum(s.passes for s in stats))
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > 4
    assert rows[-1] == 1.0


def test_expectations_come_true(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    stats = [answer(llm, prompt, Speculation(budget=12)) for prompt in prompts.values()]
    expected = sum(s.expected_n for s in stats)
    committed = sum(s.predicted_n - 1 for s in stats)
    assert 0.8 < expected / committed < 1.25


def test_what_was_learned_helps_the_next_answer(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    fresh = answer(llm, prompts["lighthouse"], Speculation(budget=10))
    again = llm.generate(
        prompts["lighthouse"], max_tokens=N, temperature=0.0, speculate=Speculation(budget=10), cache_prompt=False
    ).stats
    assert again.acceptance_length > 1.2 * fresh.acceptance_length
