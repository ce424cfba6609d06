"""Figures add up: tokens, passes, rows, drafts and times of a generation fit each other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.core.binding import ffi
from maskprobe.core.session import Pass
from maskprobe.drafting.costs import plain_pass
from maskprobe.generation.run import _logprobs
from maskprobe.generation.tally import Tally
from maskprobe.results import TokenLogprobs

MODES = {
    "plain": False,
    "static": Speculation(tree=(14,)),
    "dynamic": Speculation(masks=2, tree="dynamic", block=30),
    "mixed": Speculation(budget=12),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_tokens", [1, 2, 40, 200])
def test_counts_fit_each_other(mode: str, max_tokens: int, llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    ids = llm.tokenize(prompts["days"])
    out = llm.generate(ids, max_tokens=max_tokens, temperature=0.0, speculate=MODES[mode], cache_prompt=False)
    stats = out.stats
    ended = out.finish_reason == "stop"
    assert stats.predicted_n == len(out.tokens) + ended
    assert stats.passes == stats.predicted_n - 1 - stats.draft_n_accepted
    assert stats.prompt_n + stats.cache_n == len(ids)
    assert sum(stats.accepted_per_depth) == stats.draft_n_accepted
    assert list(stats.accepted_per_depth) == sorted(stats.accepted_per_depth, reverse=True)
    assert sum(out.from_draft) == stats.draft_n_accepted
    assert stats.draft_n >= stats.draft_n_accepted
    assert stats.rows >= stats.passes + stats.draft_n + stats.rows_again
    assert sum(rows * n for rows, n in stats.passes_by_rows) == stats.rows
    assert sum(n for _, n in stats.passes_by_rows) == stats.passes
    if stats.passes:
        assert stats.acceptance_length == pytest.approx((stats.predicted_n - 1) / stats.passes)
    if mode == "plain":
        assert (stats.rows, stats.draft_n, stats.kv_scans) == (stats.passes, 0, 0)
    elif isinstance(MODES[mode], Speculation):
        assert stats.rows <= MODES[mode].rows() * stats.passes + stats.rows_again


def test_a_cap_counts_rows_decoded_again(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    llm.reset(learned=True)  # who knows the answer drafts little off the likeliest path
    speculation = Speculation(budget=10, probe="table-mean")  # whichever vector other tests have put on trial
    stats = llm.generate(
        prompts["bakery"], max_tokens=60, temperature=0.0, speculate=speculation, cache_prompt=False
    ).stats
    assert stats.rows_again > 0
    assert stats.rows <= 10 * stats.passes


def test_times_fit_each_other(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    stats = llm.generate(prompts["python"], max_tokens=32, temperature=0.0, cache_prompt=False).stats
    assert stats.prompt_ms > 0
    assert 0 < stats.decode_ms < stats.predicted_ms
    assert stats.host_ms == pytest.approx(stats.predicted_ms - stats.decode_ms)
    assert stats.predicted_per_second == pytest.approx(1e3 * stats.predicted_n / stats.predicted_ms)


def test_the_consumers_time_is_not_counted(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    waited = 0.0
    stats = None
    for chunk in llm.stream(prompts["days"], max_tokens=6, temperature=0.0):
        start = time.perf_counter()
        sum(range(4_000_000))
        waited += 1e3 * (time.perf_counter() - start)
        stats = chunk.stats
    assert stats is not None
    assert stats.host_ms < waited / 2


def test_figures_are_json_and_one_line(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    stats = llm.generate(prompts["days"], max_tokens=8, temperature=0.0).stats
    figures = json.loads(json.dumps(stats.as_dict()))
    assert figures["acceptance_length"] == stats.acceptance_length
    line = str(stats)
    assert f"{stats.predicted_n} tokens" in line
    assert "acceptance length" in line
    assert "tokens/s" in line
    assert "\n" not in line


def test_the_choice_of_rows_is_explained(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    curve = {1: 1.0, 2: 1.1, 60: 2.0}
    stats = llm.generate(
        prompts["days"], max_tokens=24, temperature=0.0, speculate=Speculation(cost_curve=curve), cache_prompt=False
    ).stats
    assert "2/4/8/16/32/60 rows cost" in stats.choice
    assert stats.expected_n >= stats.passes
    assert stats.probe in ("table-mean", "prompt-mean", "last-4-mean")


def test_verbose_says_why(model_path: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    curve = {1: 1.0, 2: 1.1, 60: 2.0}
    with MaskProbeLlama(
        model_path("Q4_0"), n_ctx=512, n_threads=1, verbose=True, speculation=Speculation(cost_curve=curve)
    ) as llm:
        capfd.readouterr()
        stats = llm.generate("One, two,", max_tokens=8, temperature=0.0).stats
    last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("maskprobe: ")][-1]
    assert "acceptance length" in last
    assert stats.choice in last


def test_reliability_adds_up(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    stats = llm.generate(
        prompts["days"], max_tokens=24, temperature=0.0, speculate=Speculation(budget=12), cache_prompt=False
    ).stats
    assert len(stats.reliability) == 10
    assert sum(n for n, _, _ in stats.reliability) == stats.draft_n > 0
    assert sum(n_true for _, n_true, _ in stats.reliability) == stats.draft_n_accepted > 0
    assert sum(said for _, _, said in stats.reliability) + stats.passes == pytest.approx(stats.expected_n, rel=1e-3)
    for i, (n, n_true, said) in enumerate(stats.reliability):
        assert n_true <= n
        assert n * i / 10 - 1e-6 <= said <= n * (i + 1) / 10 + 1e-6
    plain = llm.generate(prompts["days"], max_tokens=4, temperature=0.0, speculate=False, cache_prompt=False).stats
    assert plain.reliability == ()


def test_counts_fit_each_other_when_a_stop_cuts_an_accepted_run(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    options = {"max_tokens": 48, "temperature": 0.0, "speculate": Speculation(budget=12), "cache_prompt": False}
    whole = llm.generate(prompts["days"], **options)
    for n in range(2, len(whole.tokens), 3):
        out = llm.generate(prompts["days"], stop=llm.detokenize(whole.tokens[:n]), **options)
        assert sum(out.from_draft) == out.stats.draft_n_accepted
        assert out.stats.passes == out.stats.predicted_n - 1 - out.stats.draft_n_accepted


def test_accepted_per_depth_by_hand() -> None:
    totals = ffi.new("mp_totals *", {"decode_ms": 8.0})
    stats = Tally(predicted_n=9, predicted_ms=10.0, accepted=[0, 2, 1, 2], rows=[1, 4, 2, 4]).stats(totals)
    assert stats.passes_by_rows == ((1, 1), (2, 1), (4, 2))
    assert stats.accepted_per_depth == (3, 2)
    assert stats.draft_n_accepted == 5
    assert stats.passes == 4
    assert stats.acceptance_length == 2.0
    assert stats.host_ms == 2.0


def test_the_time_of_a_plain_pass_by_hand() -> None:
    curve = np.array([10.0, 12.0, 16.0], np.float32)
    # 10 + 12 + 12 + 3 rows as if 16, and twice a change of 2, on a machine at half of its pace
    assert plain_pass(curve, 2.0, [1, 2, 2, 5], 2 * (10 + 12 + 12 + 16 + 4)) == pytest.approx(20.0)
    assert plain_pass(np.array([90.0, 20.0], np.float32), 0.0, [2, 2], 30.0) == 15.0, "more rows never cost less"
    assert plain_pass(curve, 2.0, [], 0.0) == 0.0


def test_plain_speed_is_told_where_costs_were_measured(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    options = {"max_tokens": 24, "temperature": 0.0, "cache_prompt": False}
    stats = llm.generate(prompts["days"], **options).stats
    assert 0 < stats.plain_pass_ms <= stats.decode_ms / stats.passes
    assert stats.timings()["plain_per_second"] == 1e3 / stats.plain_pass_ms
    for speculate in (False, Speculation(budget=4), Speculation(tree="dynamic")):
        stats = llm.generate(prompts["days"], speculate=speculate, **options).stats
        assert "plain_per_second" not in stats.timings()


def test_logprobs_are_numbers_that_json_has() -> None:
    logp, top = ffi.new("float[]", [float("nan"), -1.5]), ffi.new("int32_t[]", [4, 7, 4, 7])
    top_logp = ffi.new("float[]", [float("nan"), -float("inf"), -1.5, -float("inf")])
    passed = Pass()
    passed.c = ffi.new("mp_pass *", {"logp": logp, "top": top, "top_logp": top_logp, "n_top": 2})
    assert _logprobs(passed, 0) == TokenLogprobs(-9999.0, [(4, -9999.0), (7, -9999.0)])
    assert _logprobs(passed, 1) == TokenLogprobs(-1.5, [(4, -1.5), (7, -9999.0)])
