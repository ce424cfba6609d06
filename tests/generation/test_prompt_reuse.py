"""What the KV cache already holds of a prompt is not decoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maskprobe import MaskProbeLlama, Speculation

DRAFTING = Speculation(budget=12)


@pytest.fixture
def fresh(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=512, n_threads=1, speculation=DRAFTING) as llm:
        yield llm


def test_a_shared_beginning_is_reused(fresh: MaskProbeLlama, prompts: dict[str, str]) -> None:
    first = fresh.tokenize(prompts["lighthouse"])
    out = fresh.generate(first, max_tokens=8, temperature=0.0)
    assert (out.stats.cache_n, out.stats.prompt_n) == (0, len(first))

    again = fresh.generate(first, max_tokens=8, temperature=0.0)
    assert (again.stats.cache_n, again.stats.prompt_n) == (len(first) - 1, 1)
    assert again.tokens == out.tokens

    # The next turn: the answer is in the cache too, but for its last token.
    turn = first + out.tokens + fresh.tokenize("<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    more = fresh.generate(turn, max_tokens=8, temperature=0.0)
    assert more.stats.cache_n >= len(first) + len(out.tokens) - 1
    assert more.stats.cache_n + more.stats.prompt_n == len(turn)

    other = fresh.generate(prompts["python"], max_tokens=4, temperature=0.0)
    assert 0 < other.stats.cache_n < 12  # the template's first words


def test_the_cache_can_be_left_unused_and_forgotten(fresh: MaskProbeLlama, prompts: dict[str, str]) -> None:
    ids = fresh.tokenize(prompts["days"])
    fresh.generate(ids, max_tokens=4)
    assert fresh.generate(ids, max_tokens=4, cache_prompt=False).stats.cache_n == 0
    assert fresh.generate(ids, max_tokens=4).stats.cache_n == len(ids) - 1
    fresh.reset()
    assert fresh.generate(ids, max_tokens=4).stats.cache_n == 0


def test_plain_and_drafted_calls_mix(fresh: MaskProbeLlama, llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    modes = [False, DRAFTING, Speculation(tree=(14,)), Speculation(masks=2, tree="dynamic"), False, DRAFTING]
    for mode in modes:
        for text in (prompts["days"], prompts["python"]):
            fresh.generate(text, max_tokens=7, temperature=0.9, speculate=mode)
            ours = fresh.generate(text, max_tokens=12, temperature=0.0, speculate=mode, cache_prompt=False)
            plain = llm.generate(text, max_tokens=12, temperature=0.0, speculate=False, cache_prompt=False)
            assert ours.tokens == plain.tokens
