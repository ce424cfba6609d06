"""What tuning stores is used by the next load, and a damaged store is as good as none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from maskprobe import Generation, MaskProbeLlama, Speculation, cache
from maskprobe.core.session import ADJACENCY_WIDTH
from maskprobe.drafting import store
from maskprobe.drafting.costs import Costs
from maskprobe.tuning import own_texts
from maskprobe.tuning.steps import tune_texts

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
    store.store_costs(tiny, setup, Costs({1: 5.0, 2: 50.0}, 0.5))
    store.store_costs(tiny, "another machine", Costs({1: 1.0}))
    monkeypatch.setattr("maskprobe.drafting.costs.measure", lambda *_: pytest.fail("measured"))
    with load(tiny) as llm:
        assert llm.engine.knowledge.measured_costs() == {1: 5.0, 2: 50.0}
        assert llm.engine.knowledge.measured_costs().change == 0.5
        assert "2/4/8/16/32/60 rows cost 10" in llm.generate(PROMPT, max_tokens=4).stats.choice


@pytest.mark.parametrize("stored", [[], {}, {"1": "x"}, {"1": -1}, {"2": 3.0}, {"1": [5.0]}, 3, "1", [1.0], True])
def test_a_damaged_cost_curve_is_ignored(stored: object, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cache, "store_json", lambda name, model, _, store=cache.store_json: store(name, model, stored))
        store.store_costs(tiny, "s", Costs({1: 5.0}))
    assert store.load_costs(tiny, "s") is None
    store.store_costs(tiny, "s", Costs({1: 5.0}))
    assert store.load_costs(tiny, "s") == {1: 5.0}


STORES_COSTS = """
import sys
from pathlib import Path
from maskprobe.drafting import store
from maskprobe.drafting.costs import Costs
model, who = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for i in range(60):
    store.store_costs(model, f"setup {i} of {who}", Costs({1: 1.0 + i}))
"""


def test_processes_that_tune_at_once_do_not_undo_each_other(tiny: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", STORES_COSTS, str(tiny), who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    for who in "ab":
        assert [store.load_costs(tiny, f"setup {i} of {who}") for i in range(60)] == [{1: 1.0 + i} for i in range(60)]


def test_followers_are_the_models_own(tiny: Path) -> None:
    with load(tiny) as llm:
        tokens, logps = llm.engine.knowledge.rank_followers([5, 6, 7])
        assert tokens.shape == logps.shape == (3, ADJACENCY_WIDTH)
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
        parts = [llm.engine.knowledge.rank_followers(range(a, min(a + 60, n_vocab))) for a in range(0, n_vocab, 60)]
    table = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    store.store_adjacency(tiny, table)
    loaded = store.load_adjacency(tiny, n_vocab)
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
    tokens = np.zeros((300, ADJACENCY_WIDTH), np.int32)
    logps = np.zeros((300, ADJACENCY_WIDTH), np.float16)
    if damage == "shape":
        tokens = tokens[:, :4]
    elif damage == "ids":
        tokens[17, 3] = 300
    elif damage == "type":
        tokens = tokens.astype(np.int64)
    else:
        tokens, logps = tokens[:299], logps[:299]
    cache.store_arrays("adjacency", tiny, {"tokens": tokens, "logps": logps})
    assert store.load_adjacency(tiny, 300) is None
    load(tiny).close()


def test_texts_are_drafted_from_at_once(tiny: Path) -> None:
    only_history = Speculation(budget=8, sources=("history",))
    with load(tiny) as llm:
        n_vocab = llm.n_vocab()
        first = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=only_history)
        assert first.stats.draft_n == 0  # nothing has been written yet
        again = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=only_history, cache_prompt=False)
        assert again.tokens == first.tokens
        assert again.stats.draft_n_accepted > 4
        prompt = llm.tokenize(PROMPT)
    store.store_texts(tiny, [np.array([*prompt, *first.tokens], np.int32), np.array([], np.int32)])
    assert [len(text) for text in store.load_texts(tiny, n_vocab)] == [len(prompt) + len(first.tokens), 0]
    with load(tiny) as llm:
        for _ in range(2):
            out = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=only_history, cache_prompt=False)
            assert out.tokens == first.tokens
            assert out.stats.draft_n_accepted > 4
            llm.reset(learned=True)  # what tuning found stays


@pytest.mark.parametrize("damage", ["ids", "negative", "type", "lengths", "shape"])
def test_damaged_texts_are_ignored(damage: str, tiny: Path) -> None:
    tokens, lengths = np.arange(10, dtype=np.int32), np.array([4, 6], np.int32)
    if damage == "ids":
        tokens[3] = 300
    elif damage == "negative":
        tokens[3] = -1
    elif damage == "type":
        tokens = tokens.astype(np.float32)
    elif damage == "lengths":
        lengths[0] = 5
    else:
        tokens = tokens.reshape(2, 5)
    cache.store_arrays("texts", tiny, {"tokens": tokens, "lengths": lengths})
    assert store.load_texts(tiny, 300) == []
    load(tiny).close()


def test_writing_goes_on_where_it_was_interrupted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = own_texts.Writer.write

    def fails_at_3(writer: own_texts.Writer, number: int) -> list[int]:
        if number == 3:
            raise KeyboardInterrupt
        return write(writer, number)

    with load(tiny) as llm:
        n_vocab, console = llm.n_vocab(), Console(quiet=True)
        whole = [own_texts.Writer(llm).write(number) for number in range(5)]
        with monkeypatch.context() as patch:
            patch.setattr(own_texts.Writer, "write", fails_at_3)
            with pytest.raises(KeyboardInterrupt):
                tune_texts(llm, console, sum(map(len, whole)))
        kept = store.load_texts(tiny, n_vocab)
        assert [text.tolist() for text in kept] == whole[:3]
        tune_texts(llm, console, sum(map(len, whole)))
    assert [text.tolist() for text in store.load_texts(tiny, n_vocab)] == whole


def test_a_chat_model_answers_messages_of_its_own(model_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=512, n_threads=1) as llm:
        asked = []
        generate = llm.generate

        def watched(prompt: list[int], **options: Any) -> Generation:
            asked.append(llm.detokenize(prompt, special=True))
            return generate(prompt, **options)

        llm.generate = watched  # type: ignore[method-assign,assignment]
        answer = own_texts.Writer(llm).write(1)
        message, whole = asked
        assert message.endswith("<|im_start|>user\n")
        assert whole.startswith(message)
        assert len(whole) > len(message) + 50
        assert whole.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert len(llm.detokenize(answer)) > 20
        assert own_texts.Writer(llm).write(1) == answer
