"""What the benchmark reads in a context of its own: hidden states by layer, the published method built naively."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import gguf
import numpy as np
import pytest
from bench.paper import layers
from bench.paper.layers import Drift, LayerWatch
from bench.paper.naive import NaiveProbe
from bench.rows import Row, RowContext
from rich.console import Console

from maskprobe import MaskProbeLlama, Speculation, UnsupportedModelError


@pytest.fixture
def tiny(tiny_path: Callable[[str], Path]) -> MaskProbeLlama:
    return MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_threads=1, speculation=Speculation(budget=4))


def test_the_last_layers_states_give_the_logits(tiny: MaskProbeLlama, tiny_path: Callable[[str], Path]) -> None:
    reader = gguf.GGUFReader(tiny_path("llama"))
    weights = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    epsilon = reader.fields["llama.attention.layer_norm_rms_epsilon"].contents()
    watch = LayerWatch()
    with closing(RowContext(tiny, n_sequences=1, watch=watch)) as rows:
        rows.begin([72, 101, 108], [0])
        states = watch.decode(rows, [Row(111, 3, [0]), Row(119, 4, [0])])
        logits = np.stack([rows.logits(0), rows.logits(1)])
    assert states.shape == (2, 3, 64)  # the input and two layers
    assert np.allclose(states[:, 0], weights["token_embd.weight"][[111, 119]])
    last = states[:, -1]
    normed = last / np.sqrt((last**2).mean(axis=-1, keepdims=True) + epsilon) * weights["output_norm.weight"]
    assert np.allclose(normed @ weights["token_embd.weight"].T, logits, atol=1e-4)
    tiny.close()


def test_a_mask_that_is_the_true_token_has_its_states(tiny: MaskProbeLlama) -> None:
    watch = LayerWatch()
    with closing(RowContext(tiny, n_sequences=2, watch=watch)) as rows:
        rows.begin([72, 101, 108], [0, 1])
        masks = watch.decode(rows, [Row(108, 3, [0, 1]), Row(rows.vector(111), 4, [1])])[1]
        others = watch.decode(rows, [Row(rows.vector(119), 4, [0])])[0]  # does not see the mask
        rows.drop(4, [0, 1])
        true = watch.decode(rows, [Row(111, 4, [0, 1])])[0]
    assert layers.cosines(masks, true) == pytest.approx(1.0, abs=1e-5)
    assert np.all(layers.cosines(masks, others) < 0.99)
    tiny.close()


@pytest.mark.filterwarnings("ignore:mamba.gguf is decoded plainly")
def test_a_model_without_masks_is_refused(tiny_path: Callable[[str], Path]) -> None:
    with (
        MaskProbeLlama(tiny_path("mamba"), n_ctx=256, n_threads=1) as llm,
        pytest.raises(UnsupportedModelError, match="takes no masks in trees"),
    ):
        RowContext(llm, n_sequences=1)


def test_candidates_are_the_best_but_the_parent() -> None:
    logits = np.arange(100.0, 0.0, -1.0, dtype=np.float32)
    assert layers.candidates(logits, 50) == list(range(29))
    assert layers.candidates(logits, 3) == [0, 1, 2, *range(4, 30)]


def test_guesses_are_told_apart_as_the_core_accepts_them(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    ids = llm.tokenize(prompts["days"])
    drifts = layers.measure(llm, [ids], max_tokens=16, console=Console(quiet=True))
    # The core reads the masks of some of these tokens, those behind the last token of each pass.
    core = llm.generate(ids, max_tokens=16, temperature=0.0, speculate=Speculation.paper(60), cache_prompt=False)
    drift = drifts["prompt mean"]
    assert len(drift.accepted) + len(drift.rejected) == 14  # of 16 tokens, all but the first two
    assert core.stats.draft_n_accepted > 0
    assert len(drift.accepted) >= core.stats.draft_n_accepted
    assert len(drift.rejected) > 0
    assert Drift().means() == (None, None)


def test_built_naively_the_method_accepts_the_same(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    ids = llm.tokenize(prompts["days"])
    plain = llm.generate(ids, max_tokens=20, temperature=0.0, speculate=False, cache_prompt=False)
    core = llm.generate(ids, max_tokens=20, temperature=0.0, speculate=Speculation.paper(60), cache_prompt=False)
    naive = NaiveProbe(llm)
    out = naive.generate(ids, 20)
    naive.close()
    assert out.tokens == plain.tokens == core.tokens
    assert out.finish_reason == plain.finish_reason
    assert core.stats.draft_n_accepted > 0
    assert (out.stats.draft_n, out.stats.draft_n_accepted) == (core.stats.draft_n, core.stats.draft_n_accepted)
    assert out.stats.passes == 2 * core.stats.passes - 1  # no masks behind the last token
    assert out.stats.rows < core.stats.rows
