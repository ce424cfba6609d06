"""Models of many architectures, tiny and random: probed, or decoded plainly with the reason said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from bench_scripts import bench_script
from reference import PlainDecoder, assert_near_tie

from maskprobe import MaskProbeLlama, Speculation, UnsupportedModelError

PROBED = (
    *("llama", "llama-untied", "qwen2", "phi3", "gpt2", "gpt-oss", "deepseek2", "qwen3", "qwen3moe"),
    *("gemma2", "gemma3", "granite"),
)
PLAIN = {
    "mamba": "recurrent",
    "lfm2": "recurrent layers",
    "qwen2vl": "M-RoPE",
    "gemma3n": "do not reproduce the logits",
}
NOISE = 5e-3  # F32 kernels round by the shape of the batch; logits spread by about 1
PROMPT = "the tree of the sea and the tree of the sea and the tree"


def test_every_maker_is_tested() -> None:
    assert set(tiny_models.NAMES) == {*PROBED, *PLAIN, "bert", "t5"}


def test_the_committed_table_is_what_the_script_makes(tiny_path: Callable[[str], Path]) -> None:
    script = bench_script("architectures")
    page = script.page(tiny_path)
    assert page == script.PAGE.read_text()
    named = {name for name in script.TESTS.values() if name in globals()}
    assert len(named) == 2  # the third is in test_bad_input.py
    for name in tiny_models.NAMES:
        assert f"| {name} |" in page


@pytest.mark.parametrize("name", PROBED)
def test_probed_models_are_lossless(name: str, tiny_path: Callable[[str], Path]) -> None:
    decoder = PlainDecoder(tiny_path(name), n_ctx=512)
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1) as llm:
        assert llm.why_plain is None
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


@pytest.mark.parametrize("name", PLAIN)
def test_others_are_decoded_plainly(name: str, tiny_path: Callable[[str], Path]) -> None:
    decoder = PlainDecoder(tiny_path(name), n_ctx=512)
    with pytest.warns(RuntimeWarning, match=PLAIN[name]) as caught:
        llm = MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1)
    assert len(caught) == 1
    with llm, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert llm.why_plain is not None
        ids = llm.tokenize(PROMPT)
        out = llm.generate(ids, max_tokens=32, temperature=0.0)
        assert_near_tie(out.tokens, decoder.decode(ids, 32), NOISE)
        assert (out.stats.draft_n, out.stats.rows) == (0, out.stats.passes)
        again = llm.generate([*ids, *out.tokens[:4]], max_tokens=8, temperature=0.0)
        assert_near_tie(again.tokens, decoder.decode([*ids, *out.tokens[:4]], 8), NOISE)
        for speculate in (True, Speculation(tree=(4,))):
            with pytest.raises(UnsupportedModelError, match=PLAIN[name]):
                llm.generate(ids, speculate=speculate)
    decoder.close()


def test_a_split_model_is_the_same_model(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    whole = tiny_path("llama")
    first = tiny_models.split_gguf(whole, tmp_path, 2)
    with MaskProbeLlama(whole, n_threads=1) as one, MaskProbeLlama(first, n_threads=1) as two:
        assert two.why_plain is None
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
    with pytest.warns(RuntimeWarning, match="do not reproduce the logits"):
        MaskProbeLlama(tiny_path("gemma3"), n_threads=1).close()


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
