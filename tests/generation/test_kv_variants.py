"""Other KV caches and contexts give what a separate plain decoder gives with the same settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
import tiny_models
from reference import PlainDecoder, assert_near_tie

from maskprobe import ContextError, MaskProbeLlama, Speculation

MODES: tuple[Speculation | bool, ...] = (False, Speculation(budget=8), Speculation(tree=(7,)))
TINY_NOISE = 5e-3  # of F32 kernels; logits spread by about 1
Q8_0, Q4_0 = 8, 2
NO_FLASH = {"flash_attn_type": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED}

# Ours, the plain decoder's, and how far its two best logits may be apart where outputs part.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "q8_0": ({"type_k": Q8_0, "type_v": Q8_0}, {"type_k": Q8_0, "type_v": Q8_0}, 0.0),
    "q8_0 keys, q4_0 values": ({"type_k": Q8_0, "type_v": Q4_0}, {"type_k": Q8_0, "type_v": Q4_0}, 0.0),
    # One row and several round differently here: by up to 0.5 per logit, measured.
    "no flash attention": ({"flash_attn": False}, NO_FLASH, 1.0),
    "prompt in pieces of 16": ({"n_ubatch": 16}, {"n_ubatch": 16}, 0.0),
    "odd context": ({"n_ctx": 300}, {"n_ctx": 300}, 0.0),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_lossless(name: str, model_path: Callable[[str], Path], prompts: dict[str, str]) -> None:
    ours, plain, noise = VARIANTS[name]
    path = model_path("Q4_0")
    decoder = PlainDecoder(path, **({"n_ctx": 256} | plain))
    with MaskProbeLlama(path, **({"n_ctx": 256, "n_threads": 1, "speculation": MODES[1]} | ours)) as llm:
        assert llm.n_ctx() == decoder.n_ctx
        ids = llm.tokenize(prompts["days"])
        expected = decoder.decode(ids, 16)
        for mode in MODES:
            out = llm.generate(ids, max_tokens=16, temperature=0.0, speculate=mode, cache_prompt=False)
            assert_near_tie(out.tokens, expected, noise)
            assert (out.stats.draft_n_accepted > 0) == (mode is not False)
    decoder.close()


def test_a_split_model_is_lossless(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    first = tiny_models.split_gguf(tiny_path("llama"), tmp_path, 3)
    decoder = PlainDecoder(first, n_ctx=512)
    with MaskProbeLlama(first, n_ctx=512, n_threads=1) as llm:
        ids = llm.tokenize("the tree of the sea and the tree")
        for mode in MODES:
            out = llm.generate(ids, max_tokens=32, temperature=0.0, speculate=mode, cache_prompt=False)
            assert_near_tie(out.tokens, decoder.decode(ids, 32), TINY_NOISE)
    decoder.close()


def test_blocks_must_fit_what_is_computed_at_once(model_path: Callable[[str], Path], prompts: dict[str, str]) -> None:
    path = model_path("Q4_0")
    decoder = PlainDecoder(path, n_ctx=512, n_ubatch=8)
    with MaskProbeLlama(path, n_ctx=512, n_ubatch=8, n_threads=1, speculation=Speculation(budget=8)) as llm:
        ids = llm.tokenize(prompts["days"])
        for mode in (Speculation(budget=9), Speculation(tree=(7,)), Speculation.paper(10)):
            with pytest.raises(ValueError, match=r"rows does not fit n_ubatch=8; use a smaller block"):
                llm.generate(ids, speculate=mode)
        expected = decoder.decode(ids, 16)
        for mode in (Speculation(budget=8), Speculation(tree=(3,)), Speculation(cost_curve={1: 1.0, 60: 1.1})):
            out = llm.generate(ids, max_tokens=16, temperature=0.0, speculate=mode, cache_prompt=False)
            assert out.tokens == expected.tokens
            assert out.stats.rows <= 8 * out.stats.passes
    decoder.close()


@pytest.mark.parametrize("mode", MODES, ids=["plain", "budget", "tree"])
def test_a_full_context_ends_cleanly(mode: Speculation | bool, tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path("llama")
    decoder = PlainDecoder(path, n_ctx=256)
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=8)) as llm:
        text = llm.tokenize("the tree of the sea " * 60)
        for n_more in (40, 3, 1):  # with room, with less room than a block, and with room for one
            ids = text[: 256 - n_more]
            out = llm.generate(ids, max_tokens=None, temperature=0.0, speculate=mode, cache_prompt=False)
            assert_near_tie(out.tokens, decoder.decode(ids, n_more), TINY_NOISE)
            assert len(out.tokens) == n_more, "it ended before the context was full"
            assert out.finish_reason == "length"
        whole = [*ids, *out.tokens]
        with pytest.raises(ContextError, match="the prompt has 256 tokens, but n_ctx=256"):
            llm.generate(whole, speculate=mode)
        shorter = whole[100:]
        again = llm.generate(shorter, max_tokens=8, temperature=0.0, speculate=mode)
        assert_near_tie(again.tokens, decoder.decode(shorter, 8), TINY_NOISE)
    decoder.close()
