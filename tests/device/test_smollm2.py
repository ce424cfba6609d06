"""Short runs of the embedded model where its layers lie, beside plain decoding there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference import GPU_LAYERS, PlainDecoder, assert_near_tie

from maskprobe import MaskProbeLlama, Speculation

pytestmark = pytest.mark.device

N = 10
Q8_0 = 8  # a ggml_type
# How far the logits of one row and of up to eight may be apart: on a CPU as in test_lossless.py, and on a device, where
# kernels for a few rows are others than those for one.
NOISE = {"Q4_0": (0.0, 0.05), "F16": (0.05, 0.4)}
MODES = (False, Speculation(budget=4, sources=("ngrams", "probe")), Speculation(tree=(3,)))


@pytest.mark.parametrize("file_type", NOISE)
def test_short_answers_are_plain_decodings(
    file_type: str, model_path: Callable[[str], Path], prompts: dict[str, str]
) -> None:
    check(model_path(file_type), prompts["days"], NOISE[file_type][GPU_LAYERS != 0], {}, {})


def test_a_quantized_cache_is_plain_decodings(model_path: Callable[[str], Path], prompts: dict[str, str]) -> None:
    types = {"type_k": Q8_0, "type_v": Q8_0}
    check(model_path("Q4_0"), prompts["days"], NOISE["Q4_0"][GPU_LAYERS != 0], types, types)


def check(path: Path, prompt: str, noise: float, ours: dict[str, Any], plain: dict[str, Any]) -> None:
    decoder = PlainDecoder(path, n_ctx=256, **plain)
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4), **ours) as llm:
        ids = llm.tokenize(prompt)
        expected = decoder.decode(ids, N)
        for mode in MODES:
            out = llm.generate(ids, max_tokens=N, temperature=0.0, speculate=mode, cache_prompt=False)
            assert (out.stats.draft_n > 0) == (mode is not False)
            assert_near_tie(out.tokens, expected, noise)
    decoder.close()
