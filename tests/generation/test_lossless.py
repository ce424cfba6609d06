"""Whatever is drafted, the tokens are those of plain decoding: held to a separate decoder by llama_cpp alone.

Equality is exact where llama.cpp's kernels round alike for one row and for several (Q4_0, Q4_1 and Q8_0 weights, one
thread, fewer than 64 rows); elsewhere outputs may part at a near tie only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference import PlainDecoder, assert_near_tie

from maskprobe import MaskProbeLlama, Speculation

SETTINGS = {
    "4": Speculation(tree=(4,)),
    "14": Speculation(tree=(14,)),
    "29": Speculation(tree=(29,)),
    "15x4": Speculation(masks=2, tree=(15, 4)),
    "7x5x2": Speculation(masks=3, tree=(7, 5, 2)),
    "dynamic, 1 mask": Speculation(tree="dynamic", block=20),
    "dynamic, 2 masks": Speculation(masks=2, tree="dynamic", block=60),
    "dynamic, 4 masks": Speculation(masks=4, tree="dynamic", block=60),
    "paper": Speculation.paper(30),
    "last-k": Speculation(masks=2, tree=(6, 2), probe="last-k"),
    "sample": Speculation(tree=(14,), probe="sample", update=0.5),
    "not pruned": Speculation(masks=2, tree=(9, 3), prune=False),
    "mixed, 2 rows": Speculation(budget=2),
    "mixed, 10 rows": Speculation(budget=10),
    "mixed, 60 rows": Speculation(budget=60),
    "mixed, no masks": Speculation(budget=16, masks=0),
    "mixed, 2 masks": Speculation(budget=24, masks=2),
    "mixed, rows that vary": Speculation(cost_curve={1: 1, 4: 1.5, 16: 2.2, 60: 5}),
    "mixed, auto": Speculation(),
}
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "seed": 42},
    "penalties": {"temperature": 0.7, "seed": 3, "repeat_penalty": 1.3, "frequency_penalty": 0.2},
    "greedy, presence": {"temperature": 0.0, "presence_penalty": 0.5, "penalty_last_n": 16},
    "typical": {"temperature": 1.2, "seed": 9, "typical_p": 0.9, "min_p": 0.1, "top_k": 0, "top_p": 1.0},
}


def check_equal(
    llm: MaskProbeLlama,
    decoder: PlainDecoder,
    text: str,
    speculation: Speculation | bool,
    n: int = 40,
    **sampling: Any,
) -> int:
    """Drafted tokens that were accepted on the way to an equal output."""
    ids = llm.tokenize(text)
    expected = decoder.decode(ids, n, **sampling)
    out = llm.generate(ids, max_tokens=n, speculate=speculation, cache_prompt=False, **sampling)
    assert out.tokens == expected.tokens
    assert out.finish_reason == ("stop" if expected.ended else "length")
    return out.stats.draft_n_accepted


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_lossless(
    name: str,
    llm: MaskProbeLlama,
    plain_decoder: Callable[[str], PlainDecoder],
    prompts: dict[str, str],
) -> None:
    decoder = plain_decoder("Q4_0")
    accepted = check_equal(llm, decoder, prompts["days"], SETTINGS[name], **SAMPLING["greedy"])
    accepted += check_equal(llm, decoder, prompts["bakery"], SETTINGS[name], **SAMPLING["sampled"])
    if name != "mixed, auto":  # which may find that no row pays
        assert accepted > 0


@pytest.mark.parametrize("file_type", ["Q4_1", "Q8_0"])
@pytest.mark.parametrize("name", ["14", "7x5x2", "mixed, 10 rows"])
def test_other_quantizations_are_lossless(
    file_type: str,
    name: str,
    load: Callable[[str], MaskProbeLlama],
    plain_decoder: Callable[[str], PlainDecoder],
    prompts: dict[str, str],
) -> None:
    for sampling in ("greedy", "sampled"):
        check_equal(
            load(file_type), plain_decoder(file_type), prompts["python"], SETTINGS[name], 32, **SAMPLING[sampling]
        )


@pytest.mark.parametrize("sampling", SAMPLING)
def test_every_sampler_is_lossless(
    sampling: str, llm: MaskProbeLlama, plain_decoder: Callable[[str], PlainDecoder], prompts: dict[str, str]
) -> None:
    decoder = plain_decoder("Q4_0")
    for name in ("14", "mixed, 10 rows"):
        check_equal(llm, decoder, prompts["lighthouse"], SETTINGS[name], **SAMPLING[sampling])


def test_plain_decoding_is_the_reference(
    llm: MaskProbeLlama, plain_decoder: Callable[[str], PlainDecoder], prompts: dict[str, str]
) -> None:
    for sampling in SAMPLING.values():
        assert check_equal(llm, plain_decoder("Q4_0"), prompts["python"], False, **sampling) == 0


def test_a_vector_of_ones_own_is_lossless(
    llm: MaskProbeLlama, plain_decoder: Callable[[str], PlainDecoder], prompts: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    probe = rng.normal(0.0, 0.05, (2, 576)).astype(np.float32)
    speculation = Speculation(masks=2, tree=(8, 3), probe=probe, update=0.2)
    check_equal(llm, plain_decoder("Q4_0"), prompts["days"], speculation, temperature=0.0)


def test_long_prompts_in_pieces_are_lossless(
    llm: MaskProbeLlama, plain_decoder: Callable[[str], PlainDecoder], prompts: dict[str, str]
) -> None:
    text = prompts["bakery"] * 5  # more than n_batch tokens
    assert 512 < len(llm.tokenize(text)) < 900
    check_equal(llm, plain_decoder("Q4_0"), text, Speculation(budget=12), 24, temperature=0.0)


@pytest.mark.parametrize(("file_type", "noise"), [("F16", 0.05), ("Q4_K_M", 1.0)])
def test_other_types_part_at_near_ties_only(
    file_type: str,
    noise: float,
    load: Callable[[str], MaskProbeLlama],
    plain_decoder: Callable[[str], PlainDecoder],
    prompts: dict[str, str],
) -> None:
    llm = load(file_type)
    for text in (prompts["lighthouse"], prompts["python"]):
        ids = llm.tokenize(text)
        expected = plain_decoder(file_type).decode(ids, 32)
        for name in ("14", "mixed, 10 rows"):
            out = llm.generate(ids, max_tokens=32, temperature=0.0, speculate=SETTINGS[name], cache_prompt=False)
            assert_near_tie(out.tokens, expected, noise)


def test_what_is_learned_never_changes_the_output(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    mixed = Speculation(budget=12)

    def answer() -> list[int]:
        return llm.generate(prompts["days"], max_tokens=40, temperature=0.0, speculate=mixed, cache_prompt=False).tokens

    before = answer()
    for text in prompts.values():
        llm.generate(text, max_tokens=24, temperature=0.9, seed=5, speculate=mixed)
    assert answer() == before
