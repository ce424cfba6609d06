"""What tuning stores is used by the next load, and a damaged store is as good as none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskprobe import MaskProbeLlama, Speculation, cache, survey, tuned

PROMPT = "the tree of the sea"


@pytest.fixture
def tiny(tiny_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path))
    return tiny_path("llama")


def load(path: Path) -> MaskProbeLlama:
    return MaskProbeLlama(path, n_ctx=512, n_threads=1)


def test_a_tuned_cost_curve_is_not_measured_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(tiny) as llm:
        setup = llm.engine.setup
    tuned.store_costs(tiny, setup, {1: 5.0, 2: 50.0})
    tuned.store_costs(tiny, "another machine", {1: 1.0})
    monkeypatch.setattr("maskprobe.costs.measure", lambda *_: pytest.fail("measured"))
    with load(tiny) as llm:
        assert llm.engine.measured_costs() == {1: 5.0, 2: 50.0}
        assert "2/4/8/16/32/60 rows cost 10" in llm.generate(PROMPT, max_tokens=4).stats.choice


@pytest.mark.parametrize("stored", [[], {"s": {}}, {"s": {"1": "x"}}, {"s": {"1": -1}}, {"s": {"2": 3.0}}, {"s": 3}])
def test_a_damaged_cost_curve_is_ignored(stored: object, tiny: Path) -> None:
    cache.store_json("costs", tiny, stored)
    assert tuned.load_costs(tiny, "s") is None


def test_followers_are_the_models_own(tiny: Path) -> None:
    with load(tiny) as llm:
        tokens, logps = llm.engine.rank_followers([5, 6, 7])
        assert tokens.shape == logps.shape == (3, survey.WIDTH)
        assert (np.diff(logps, axis=1) <= 0).all()
        np.testing.assert_allclose(np.exp(logps).sum(1), 1.0, atol=1e-3)  # among those listed
        bos = llm.tokenize("")[0]
        for row, token in enumerate([5, 6, 7]):
            out = llm.generate([bos, token], max_tokens=1, temperature=0.0, speculate=False, cache_prompt=False)
            assert out.tokens == [tokens[row, 0]]


def test_a_tuned_adjacency_table_drafts(tiny: Path) -> None:
    with load(tiny) as llm:
        plain = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=False)
        n_vocab = llm.n_vocab()
        parts = [llm.engine.rank_followers(range(a, min(a + 60, n_vocab))) for a in range(0, n_vocab, 60)]
    table = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    tuned.store_adjacency(tiny, table)
    loaded = tuned.load_adjacency(tiny, n_vocab)
    assert loaded is not None
    np.testing.assert_array_equal(loaded[0], table[0])
    with load(tiny) as llm:
        # No masks, nothing to copy, nothing seen: these drafts can only come from the table.
        first = llm.generate([7, 9], max_tokens=2, temperature=0.0, speculate=Speculation(budget=6, masks=0))
        assert first.stats.draft_n == 0  # the last token is never drafted for
        out = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=Speculation(budget=8), cache_prompt=False)
        assert out.tokens[0] == plain.tokens[0]
        assert out.stats.draft_n > 0


@pytest.mark.parametrize("damage", ["shape", "ids", "type", "length"])
def test_a_damaged_adjacency_table_is_ignored(damage: str, tiny: Path) -> None:
    tokens = np.zeros((300, survey.WIDTH), np.int32)
    logps = np.zeros((300, survey.WIDTH), np.float16)
    if damage == "shape":
        tokens = tokens[:, :4]
    elif damage == "ids":
        tokens[17, 3] = 300
    elif damage == "type":
        tokens = tokens.astype(np.int64)
    else:
        tokens, logps = tokens[:299], logps[:299]
    cache.store_arrays("adjacency", tiny, {"tokens": tokens, "logps": logps})
    assert tuned.load_adjacency(tiny, 300) is None
    load(tiny).close()
