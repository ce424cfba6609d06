"""Wherever layers, cache and weights lie, answers are those of plain decoding with them there.

Where MASKPROBE_TEST_GPU_LAYERS puts no layers on a device all of this is the host, and equal to the token.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference import GPU_LAYERS, PlainDecoder, assert_draws_near_tie, assert_near_tie

from maskprobe import MaskProbeLlama, Speculation

pytestmark = pytest.mark.device

PROMPT = "the tree of the sea and the tree of the sea and the tree"
NOISE = 5e-3  # of F32 kernels; logits spread by about 1
MODES = {
    "plain": False,
    "auto": Speculation(cost_curve={1: 1.0, 4: 1.2, 8: 1.5}),
    "budget": Speculation(budget=8),
    "tree": Speculation(tree=(6,)),
    "dynamic": Speculation(masks=2, tree="dynamic", block=12),
}
F32 = 0  # a ggml_type
# Layers on the device; our options; the plain decoder's.
PLACES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "all": (GPU_LAYERS, {}, {}),
    "none": (0, {}, {}),
    "one layer": (1 if GPU_LAYERS else 0, {}, {}),
    "cache on the host": (GPU_LAYERS, {"offload_kqv": False}, {"offload_kqv": False}),
    "no flash attention": (GPU_LAYERS, {"flash_attn": False}, {"flash_attn_type": 0}),
    "F32 cache": (GPU_LAYERS, {"type_k": F32, "type_v": F32}, {"type_k": F32, "type_v": F32}),
    "no map": (GPU_LAYERS, {"use_mmap": False}, {}),
}


def load(path: Path, n_gpu_layers: int = GPU_LAYERS, **options: Any) -> MaskProbeLlama:
    speculation = Speculation(tree=(6,))
    return MaskProbeLlama(path, n_ctx=256, n_threads=1, n_gpu_layers=n_gpu_layers, speculation=speculation, **options)


@pytest.mark.parametrize("place", PLACES)
def test_answers_are_plain_decodings(place: str, tiny_path: Callable[[str], Path]) -> None:
    n_gpu_layers, ours, plain = PLACES[place]
    path = tiny_path("llama")
    decoder = PlainDecoder(path, n_ctx=256, n_gpu_layers=n_gpu_layers, **plain)
    sampled: dict[str, Any] = {"temperature": 0.8, "seed": 42}
    with load(path, n_gpu_layers, **ours) as llm:
        ids = llm.tokenize(PROMPT)
        expected = decoder.decode(ids, 24)
        for mode in MODES.values():
            out = llm.generate(ids, max_tokens=24, temperature=0.0, speculate=mode, cache_prompt=False)
            assert (out.stats.draft_n > 0) == (mode is not False)
            assert_near_tie(out.tokens, expected, NOISE)
            drawn = llm.generate(ids, max_tokens=24, speculate=mode, cache_prompt=False, **sampled)
            assert_draws_near_tie(drawn.tokens, decoder, ids, NOISE, **sampled)
    decoder.close()


@pytest.mark.parametrize("name", ["llama", "gemma3", "lfm2", "mamba"])
def test_a_saved_state_comes_back(name: str, tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    decoder = PlainDecoder(tiny_path(name), n_ctx=256)
    with MaskProbeLlama(tiny_path(name), n_ctx=256, n_threads=1, speculation=Speculation(budget=6)) as llm:
        ids = llm.tokenize(PROMPT)
        ids += llm.generate(ids, max_tokens=8, temperature=0.0).tokens
        n = llm.save_state(tmp_path / "state")
        expected = decoder.decode(ids, 8)
        assert_near_tie(llm.generate(ids, max_tokens=8, temperature=0.0).tokens, expected, NOISE)
        llm.generate("something else", max_tokens=3)
        assert llm.load_state(tmp_path / "state") == n
        back = llm.generate(ids, max_tokens=8, temperature=0.0)
        assert back.stats.cache_n == n
        assert_near_tie(back.tokens, expected, NOISE)
    decoder.close()


def test_an_interrupted_answer_leaves_the_device_usable(tiny_path: Callable[[str], Path]) -> None:
    decoder = PlainDecoder(tiny_path("llama"), n_ctx=256)
    with load(tiny_path("llama")) as llm:
        ids = llm.tokenize(PROMPT)
        passes = itertools.count()

        def interrupt() -> None:
            if next(passes) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            llm.generate(ids, max_tokens=200, temperature=1.5, seed=1, before_pass=interrupt)
        after = llm.generate(ids, max_tokens=8, temperature=0.0)
        assert_near_tie(after.tokens, decoder.decode(ids, 8), NOISE)
    decoder.close()
