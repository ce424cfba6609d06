"""Models of many architectures, tiny and random: each is drafted as its memory allows, and lossless."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from bench_scripts import bench_script
from reference import PlainDecoder, assert_near_tie

from maskprobe import MaskProbeLlama, Speculation, UnsupportedModelError

TREES_WITH_MASKS = (
    *("llama", "llama-untied", "qwen2", "phi3", "gpt2", "gpt-oss", "deepseek2", "qwen3", "qwen3moe"),
    *("gemma2", "gemma3", "gemma4", "gemma4-moe", "granite", "granitemoe", "minicpm", "llama4"),
    *("exaone4", "smollm3", "cohere2", "mistral3"),
    *("qwen2vl", "qwen3vl", "qwen3vl-deepstack", "qwen3vlmoe", "glm4moe-mrope"),
)
TREES_WITHOUT = {
    **dict.fromkeys(("gemma3n", "gemma4-e"), "do not reproduce the logits"),
    **dict.fromkeys(("glm4", "glm4moe"), "takes no embeddings"),
}
CHAINS_BY_SNAPSHOTS = ("lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe")
CHAINS_BY_COPIES = (
    *("mamba", "mamba2", "rwkv7", "jamba", "granitehybrid", "granitehybrid-moe", "falcon-h1", "plamo2"),
    *("kimi-linear", "qwen3next"),
)
CHAINS = (*CHAINS_BY_SNAPSHOTS, *CHAINS_BY_COPIES)
# One of each kind is tried on a device too, where compiling what a model needs takes minutes. No lfm2: Mesa 22.3's
# device crashes on it in a thread of its own.
ON_DEVICE = ("llama", "gemma3", "deepseek2", "qwen2vl", "gemma3n", "mamba")
NOISE = 5e-3  # F32 kernels round by the shape of the batch; logits spread by about 1
BUDGET = Speculation(budget=16)
PROMPT = "the tree of the sea and the tree of the sea and the tree"


def marked(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.device] if name in ON_DEVICE else []) for name in names]


def test_every_maker_is_tested() -> None:
    assert set(tiny_models.NAMES) == {*TREES_WITH_MASKS, *TREES_WITHOUT, *CHAINS, "bert", "t5"}


def test_the_committed_table_is_what_the_script_makes(tiny_path: Callable[[str], Path]) -> None:
    script = bench_script("architectures")
    page = script.page(tiny_path)
    assert page == script.PAGE.read_text()
    named = {name for name in script.TESTS.values() if name in globals()}
    assert len(named) == 3  # the fourth is in test_bad_input.py
    for name in tiny_models.NAMES:
        assert f"| {name} |" in page


@pytest.mark.parametrize("name", marked(TREES_WITH_MASKS))
def test_trees_with_masks_are_lossless(name: str, tiny_path: Callable[[str], Path]) -> None:
    decoder = PlainDecoder(tiny_path(name), n_ctx=512)
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1) as llm:
        assert str(llm.drafting) == "trees, with masks"
        ids = llm.tokenize(PROMPT)
        expected = decoder.decode(ids, 48)
        for speculation in (
            Speculation(tree=(14,)),
            Speculation(masks=2, tree=(7, 3), probe="prompt-mean"),
            Speculation(masks=3, tree="dynamic", block=40, probe="last-k"),
            Speculation(budget=16),
        ):
            out = llm.generate(ids, max_tokens=48, temperature=0.0, speculate=speculation, cache_prompt=False)
            assert out.stats.draft_n > 0
            assert_near_tie(out.tokens, expected, NOISE)
    decoder.close()


@pytest.mark.parametrize("name", marked(TREES_WITHOUT))
def test_trees_without_masks_are_lossless(name: str, tiny_path: Callable[[str], Path]) -> None:
    decoder = PlainDecoder(tiny_path(name), n_ctx=512)
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1) as llm:
        assert (llm.drafting.shape, llm.drafting.masks) == ("trees", False)
        assert TREES_WITHOUT[name] in str(llm.drafting)
        ids = llm.tokenize(PROMPT)
        expected = decoder.decode(ids, 96)
        for _ in range(2):  # the second time the history knows the answer
            out = llm.generate(ids, max_tokens=96, temperature=0.0, speculate=BUDGET, cache_prompt=False)
            assert (out.stats.probe_n, out.stats.probe) == (0, "")
            assert_near_tie(out.tokens, expected, NOISE)
        assert out.stats.acceptance_length > 1.5
        with pytest.raises(UnsupportedModelError, match="no masks"):
            llm.generate(ids, speculate=Speculation(tree=(4,)))
    decoder.close()


@pytest.mark.parametrize("name", marked(CHAINS))
def test_chains_are_lossless(name: str, tiny_path: Callable[[str], Path]) -> None:
    """Drafts that are wrong, partly right (the first time) and right (when the history knows the answer)."""
    decoder = PlainDecoder(tiny_path(name), n_ctx=512)
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1) as llm:
        assert (llm.drafting.shape, llm.drafting.n_snapshots > 0) == ("chains", name in CHAINS_BY_SNAPSHOTS)
        assert llm.drafting.masks == (name in CHAINS_BY_SNAPSHOTS)
        ids = llm.tokenize(PROMPT)
        expected = {n: decoder.decode(ids, n) for n in (60, 300)}
        ngrams = Speculation(budget=5, sources=("ngrams",))
        for speculation, n in ((BUDGET, 300), (Speculation(masks=3, budget=12), 60), (ngrams, 60), (BUDGET, 300)):
            out = llm.generate(ids, max_tokens=n, temperature=0.0, speculate=speculation, cache_prompt=False)
            assert out.stats.draft_n > 0
            assert_near_tie(out.tokens, expected[n], NOISE)
        assert out.stats.acceptance_length > 2.0
        assert max(rows for rows, _ in out.stats.passes_by_rows) > 8
    decoder.close()


@pytest.mark.parametrize("option", ["n_batch", "n_ubatch"])
def test_passes_without_room_for_drafts_are_plain(option: str, tiny_path: Callable[[str], Path]) -> None:
    decoder = PlainDecoder(tiny_path("lfm2"), n_ctx=512)
    with pytest.warns(RuntimeWarning, match="no room for drafts") as caught:
        llm = MaskProbeLlama(tiny_path("lfm2"), n_ctx=512, n_threads=1, **{option: 1})  # type: ignore[arg-type]
    assert len(caught) == 1
    with llm, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert llm.drafting.shape == "none"
        ids = llm.tokenize(PROMPT)
        out = llm.generate(ids, max_tokens=32, temperature=0.0)
        assert_near_tie(out.tokens, decoder.decode(ids, 32), NOISE)
        assert (out.stats.draft_n, out.stats.rows) == (0, out.stats.passes)
        for speculate in (True, Speculation(tree=(4,))):
            with pytest.raises(UnsupportedModelError, match="no room for drafts"):
                llm.generate(ids, speculate=speculate)
    decoder.close()


def test_a_split_model_is_the_same_model(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    whole = tiny_path("llama")
    first = tiny_models.split_gguf(whole, tmp_path, 2)
    with MaskProbeLlama(whole, n_threads=1) as one, MaskProbeLlama(first, n_threads=1) as two:
        assert two.drafting.masks
        outs = [
            llm.generate(PROMPT, max_tokens=32, temperature=0.0, speculate=Speculation(tree=(14,)))
            for llm in (one, two)
        ]
        assert outs[0].tokens == outs[1].tokens
        assert outs[0].stats.draft_n_accepted == outs[1].stats.draft_n_accepted


def test_a_table_that_does_not_stand_for_the_ids_is_found_out(
    tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that a model's embedding rows give the logits of its ids must be able to fail."""
    monkeypatch.setattr("maskprobe.core.probing.math.sqrt", lambda x: 1.0)  # gemma3 needs the scale sqrt(n_embd)
    with MaskProbeLlama(tiny_path("gemma3"), n_threads=1) as llm:
        assert "do not reproduce the logits" in str(llm.drafting)


@pytest.mark.parametrize(
    "options",
    [
        {"flash_attn": False},
        {"type_k": 0, "type_v": 30},
        {"n_ctx": 300},
        {"n_batch": 16},
        {"n_ubatch": 8},
        {"use_mmap": False},
    ],
)
def test_other_contexts_work(options: dict[str, int], tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), n_threads=1, **options) as llm:  # type: ignore[arg-type]
        plain = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=False, cache_prompt=False)
        for speculation in (Speculation(budget=8), Speculation(cost_curve={1: 1, 60: 1.1}), Speculation(tree=(3,))):
            ours = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=speculation, cache_prompt=False)
            assert ours.stats.draft_n > 0
            assert ours.tokens[0] == plain.tokens[0]
            assert len(ours.tokens) == len(plain.tokens)
