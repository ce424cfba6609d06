"""Logits processors and stopping criteria: called once before every draw, drafts or not, as by llama_cpp.Llama."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from maskprobe import MaskProbeLlama, SamplingError, Speculation

PROMPT = "The seven days of the week are: Monday, Tuesday,"


@pytest.fixture(scope="module")
def ours(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=1024, n_threads=1, speculation=Speculation(budget=8)) as llm:
        yield llm


def no_repeats(ids: Any, logits: Any) -> Any:
    """Rules out the last eight tokens."""
    logits = np.array(logits)
    logits[np.asarray(ids)[-8:]] = -np.inf
    return logits


def at_most(n: int) -> Callable[[Any, Any], bool]:
    return lambda ids, logits: len(ids) >= n


CALLBACKS: dict[str, dict[str, Any]] = {
    "a processor": {"logits_processor": llama_cpp.LogitsProcessorList([no_repeats])},
    "a sampled one": {"logits_processor": llama_cpp.LogitsProcessorList([no_repeats]), "temperature": 0.9, "seed": 4},
    "the end is put off": {
        "logits_processor": llama_cpp.LogitsProcessorList([llama_cpp.llama.MinTokensLogitsProcessor(30, 2)])
    },
    "a criterion": {"stopping_criteria": llama_cpp.StoppingCriteriaList([at_most(500), at_most(29)])},
    "both": {
        "logits_processor": llama_cpp.LogitsProcessorList([no_repeats]),
        "stopping_criteria": llama_cpp.StoppingCriteriaList([at_most(31)]),
    },
    "beside a stop string": {"logits_processor": llama_cpp.LogitsProcessorList([no_repeats]), "stop": ["Saturday"]},
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_texts_are_llama_cpp_pythons(name: str, stock: llama_cpp.Llama, ours: MaskProbeLlama) -> None:
    options = {"max_tokens": 48, "temperature": 0.0, **CALLBACKS[name]}
    stock.reset()
    ours.reset()
    expected = stock.create_completion(PROMPT, **options)
    got = ours.create_completion(PROMPT, **options)
    assert got["choices"][0].pop("stop_reason", None) == ("Saturday" if "stop" in options else None)
    assert got["choices"] == expected["choices"]
    assert got["usage"] == expected["usage"]
    parts = list(ours.create_completion(PROMPT, stream=True, **options))
    assert "".join(part["choices"][0]["text"] for part in parts) == expected["choices"][0]["text"]
    assert parts[-1]["choices"][0]["finish_reason"] == expected["choices"][0]["finish_reason"]


def test_drafts_go_on_and_each_prefix_is_seen_once(ours: MaskProbeLlama) -> None:
    seen: list[list[int]] = []
    tops: list[int] = []

    def watch(ids: Any, logits: Any) -> Any:
        assert (ids.dtype, logits.dtype, logits.shape) == (np.intc, np.float32, (ours.n_vocab(),))
        seen.append(ids.tolist())
        tops.append(int(logits.argmax()))
        return logits

    prompt = ours.tokenize(PROMPT)
    answer = ours.generate(prompt, max_tokens=80, temperature=0.0, logits_processor=watch)
    assert answer.stats.draft_n_accepted > 0
    assert seen == [prompt + answer.tokens[:n] for n in range(len(seen))]
    assert tops[: len(answer.tokens)] == answer.tokens
    assert answer.tokens == ours.generate(prompt, max_tokens=80, temperature=0.0).tokens


def test_a_criterion_may_end_a_pass_within_what_it_accepted(ours: MaskProbeLlama) -> None:
    prompt = ours.tokenize("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,")
    whole = ours.generate(prompt, max_tokens=40, temperature=0.0)
    assert whole.stats.draft_n_accepted > 0
    for n in (0, *(i for i, drafted in enumerate(whole.from_draft) if drafted)):
        cut = ours.generate(prompt, max_tokens=40, temperature=0.0, stopping_criteria=at_most(len(prompt) + n))
        assert (cut.tokens, cut.finish_reason) == (whole.tokens[:n], "stop")
        assert cut.stats.draft_n_accepted == sum(cut.from_draft)


def test_what_a_callback_raises_ends_the_generation(ours: MaskProbeLlama) -> None:
    before = ours.generate(PROMPT, max_tokens=16, temperature=0.0).text

    def fails_late(ids: Any, logits: Any) -> Any:
        if len(ids) > 20:
            raise KeyError("mine")
        return logits

    for options in ({"logits_processor": fails_late}, {"stopping_criteria": [lambda ids, logits: ids[10_000]]}):
        with pytest.raises(LookupError) as raised:
            ours.generate(PROMPT, max_tokens=40, temperature=0.0, **options)
        assert not isinstance(raised.value, SamplingError)
        assert ours.generate(PROMPT, max_tokens=16, temperature=0.0).text == before


def interrupted(ids: Any, logits: Any) -> Any:
    raise KeyboardInterrupt


REFUSED = [
    ({"logits_processor": lambda ids, logits: logits[:5]}, ValueError, r"shape \(\d+,\), got \(5,\)"),
    ({"logits_processor": lambda ids, logits: None}, ValueError, r"shape \(\d+,\), got \(\)"),
    ({"logits_processor": lambda ids, logits: logits * np.nan}, ValueError, "no numbers"),
    ({"logits_processor": lambda ids, logits: logits - np.inf}, SamplingError, "rule every token out"),
    ({"logits_processor": 5}, TypeError, "logits_processor must be a function"),
    ({"stopping_criteria": ["end"]}, TypeError, "stopping_criteria must be a function"),
    ({"logits_processor": interrupted}, KeyboardInterrupt, None),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_go_on_is_named(
    options: dict[str, Any], error: type[BaseException], message: str | None, ours: MaskProbeLlama
) -> None:
    for temperature in (0.0, 0.8):
        with pytest.raises(error, match=message):
            ours.create_completion("Hi", max_tokens=4, temperature=temperature, **options)
    assert ours("Hi", max_tokens=1)["usage"]["completion_tokens"] == 1


def test_chats_take_processors(ours: MaskProbeLlama) -> None:
    only = ours.tokenize(" yes", add_bos=False)[0]

    def say(ids: Any, logits: Any) -> Any:
        logits[np.arange(len(logits)) != only] = -np.inf
        return logits

    chat = [{"role": "user", "content": "Is it?"}]
    answer = ours.create_chat_completion(chat, max_tokens=3, logits_processor=[say])
    assert answer["choices"][0]["message"]["content"] == " yes yes yes"
    with_grammar = ours.create_completion("x", max_tokens=3, logits_processor=say, grammar='root ::= " yes"+')
    assert with_grammar["choices"][0]["text"] == " yes yes yes"
