"""Models with a recurrent state: chains of drafts, taken back by snapshots or copies, and prompts that go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from reference import PlainDecoder, assert_near_tie

from maskprobe import DecodeError, MaskProbeLlama, Speculation, UnsupportedModelError
from maskprobe.core.session import Session

SNAPSHOTS, COPIES = "lfm2", "mamba"
NOISE = 5e-3
PROMPT = "the tree of the sea and the tree of the sea and the tree"
CHEAP = Speculation(cost_curve={1: 1.0, 60: 1.5})


def load(path: Path, **options: Any) -> MaskProbeLlama:
    return MaskProbeLlama(path, n_ctx=1024, n_threads=1, speculation=CHEAP, **options)


@pytest.fixture(params=[SNAPSHOTS, COPIES])
def path(request: pytest.FixtureRequest, tiny_path: Callable[[str], Path]) -> Path:
    return tiny_path(request.param)


def decoded(path: Path, ids: Sequence[int], n: int, **sampling: Any) -> Any:
    decoder = PlainDecoder(path, n_ctx=1024)
    found = decoder.decode(ids, n, **sampling)
    decoder.close()
    return found


def test_answers_that_repeat_themselves_take_half_the_passes(path: Path) -> None:
    with load(path) as llm:
        ids = llm.tokenize(PROMPT)
        expected = decoded(path, ids, 300)
        for _ in range(2):  # the second time the history knows the answer
            out = llm.generate(ids, max_tokens=300, temperature=0.0, cache_prompt=False)
            assert_near_tie(out.tokens, expected, NOISE)
        assert out.stats.acceptance_length >= 2.0
        assert out.stats.rows_again == 0 or llm.drafting.n_snapshots == 0


def test_sampled_answers_are_those_of_plain_decoding(path: Path) -> None:
    with load(path) as llm:
        for seed in (1, 2, 3):
            options: dict[str, Any] = {"max_tokens": 60, "temperature": 0.8, "seed": seed, "cache_prompt": False}
            plain = llm.generate(PROMPT, speculate=False, **options)
            for _ in range(2):
                assert llm.generate(PROMPT, **options).tokens == plain.tokens


def test_passes_never_have_more_rows_than_can_be_taken_back(tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path(SNAPSHOTS)
    with load(path, n_batch=8, n_ubatch=8) as llm:  # llama.cpp aborts where n_ubatch is no larger
        assert llm.drafting.n_snapshots == 6
        llm.generate(PROMPT, max_tokens=200, temperature=0.0)
        out = llm.generate(PROMPT, max_tokens=200, temperature=0.0)
        assert max(rows for rows, _ in out.stats.passes_by_rows) == 7


def test_memory_decides_how_drafts_are_taken_back(tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path(SNAPSHOTS)
    with load(path, snapshot_memory=0.0) as none, load(path) as some:
        assert (none.drafting.n_snapshots, some.drafting.n_snapshots) == (0, 16)
        assert "decoded again" in str(none.drafting)
        outs = [llm.generate(PROMPT, max_tokens=120, temperature=0.0).tokens for llm in (none, some)]
        assert outs[0] == outs[1]
    for share in (-0.1, 1.5, "half"):
        with pytest.raises((ValueError, TypeError), match="snapshot_memory"):
            load(path, snapshot_memory=share)


def test_trees_are_refused_and_masks_where_they_cannot_ride(path: Path) -> None:
    with load(path) as llm:
        with pytest.raises(UnsupportedModelError, match="recurrent state"):
            llm.generate(PROMPT, speculate=Speculation(tree=(4,)))
        alone = Speculation(sources=("probe",), budget=4)
        if llm.drafting.masks:
            assert llm.generate(PROMPT, max_tokens=20, temperature=0.0, speculate=alone).stats.probe_n > 0
        else:
            with pytest.raises(UnsupportedModelError, match="no masks"):
                llm.generate(PROMPT, speculate=alone)
        assert llm.generate(PROMPT, max_tokens=4, speculate=True).stats.predicted_n == 4


def test_chats_go_on_where_they_were(path: Path) -> None:
    with load(path) as llm:
        ids = llm.tokenize(PROMPT)
        first = llm.generate(ids, max_tokens=40, temperature=0.0)
        n_cached = llm.engine.session.n_cached()
        longer = [*ids, *first.tokens, *llm.tokenize(" of the sea", add_bos=False)]
        out = llm.generate(longer, max_tokens=20, temperature=0.0)
        assert out.stats.cache_n == n_cached
        assert_near_tie(out.tokens, decoded(path, longer, 20), NOISE)
        # The answer is left out of the next prompt, as templates do with thoughts: back to the end of the first.
        other = [*ids, *llm.tokenize(" and the sky", add_bos=False)]
        out = llm.generate(other, max_tokens=20, temperature=0.0)
        assert out.stats.cache_n == len(ids)
        assert_near_tie(out.tokens, decoded(path, other, 20), NOISE)
        out = llm.generate("an", max_tokens=20, temperature=0.0)
        assert out.stats.cache_n == 0


def test_a_saved_state_goes_on_in_another_object(path: Path, tmp_path: Path) -> None:
    with load(path) as one, load(path) as two:
        ids = one.tokenize(PROMPT)
        out = one.generate(ids, max_tokens=50, temperature=0.0)
        n = one.save_state(tmp_path / "state")
        assert two.load_state(tmp_path / "state") == n
        longer = [*ids, *out.tokens, *one.tokenize(" the sea", add_bos=False)]
        expected = decoded(path, longer, 20)
        for llm in (two, one):
            again = llm.generate(longer, max_tokens=20, temperature=0.0)
            assert again.stats.cache_n == n
            assert_near_tie(again.tokens, expected, NOISE)


def test_streams_that_are_left_or_fail_leave_the_object_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    with load(path) as llm:
        ids = llm.tokenize(PROMPT)
        expected = decoded(path, ids, 60)
        step, fails = Session.step, False

        def failing(session: Session, passed: Any) -> None:
            step(session, passed)
            if fails:
                raise DecodeError("injected")

        monkeypatch.setattr(Session, "step", failing)
        for _ in range(6):
            fails = False
            stream = llm.stream(ids, max_tokens=60, temperature=0.0)
            for _ in range(rng.randrange(1, 30)):
                next(stream)
            stream.close()
            fails = True
            with pytest.raises(DecodeError):
                llm.generate(ids, max_tokens=60, temperature=0.0)
            fails = False
            assert_near_tie(llm.generate(ids, max_tokens=60, temperature=0.0).tokens, expected, NOISE)
