"""A stream is the generation in pieces: nothing broken, nothing past a stop, and it can be left at any time."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Generator
from contextlib import closing
from typing import Any

import llama_cpp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskprobe import BusyError, Chunk, Generation, MaskProbeLlama, Speculation
from maskprobe.generation.text import TextStream

DRAFTING = Speculation(budget=12)


def answer(llm: MaskProbeLlama, prompt: str, **options: object) -> Generation:
    return llm.generate(prompt, temperature=0.0, cache_prompt=False, **{"speculate": DRAFTING, **options})


def test_chunks_add_up(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    whole = answer(llm, prompts["days"], max_tokens=48)
    chunks = list(llm.stream(prompts["days"], max_tokens=48, temperature=0.0, speculate=DRAFTING, cache_prompt=False))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [token for chunk in chunks for token in chunk.tokens] == whole.tokens
    # How much is accepted depends on what was learned before; what is said does not.
    assert chunks[-1].stats is not None
    assert sum(chunk.from_draft for chunk in chunks) == chunks[-1].stats.draft_n_accepted > 0
    assert all(chunk.finish_reason is None and chunk.stats is None for chunk in chunks[:-1])
    assert chunks[-1].finish_reason == whole.finish_reason
    assert whole.text == llm.detokenize(whole.tokens)


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_max_tokens_is_exact(n: int, llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    whole = answer(llm, prompts["lighthouse"], max_tokens=40)
    cut = answer(llm, prompts["lighthouse"], max_tokens=n)
    assert cut.tokens == whole.tokens[:n]
    assert cut.finish_reason == "length"


def test_an_ending_token_stops(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    out = answer(llm, prompts["days"], max_tokens=200)
    plain = answer(llm, prompts["days"], max_tokens=200, speculate=False)
    assert out.finish_reason == plain.finish_reason == "stop"
    assert out.tokens == plain.tokens
    assert "<|im_end|>" not in out.text


@pytest.mark.parametrize("speculate", [False, DRAFTING])
def test_stop_strings_cut_anywhere(speculate: bool | Speculation, llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    whole = answer(llm, prompts["days"], max_tokens=48)
    for start, end in ((3, 5), (11, 19), (20, 33)):
        stop = whole.text[start:end]
        cut = answer(llm, prompts["days"], max_tokens=48, stop=["never there", stop], speculate=speculate)
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert cut.finish_reason == "stop"
        assert cut.tokens == whole.tokens[: len(cut.tokens)]


def test_stop_beats_length(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    whole = answer(llm, prompts["days"], max_tokens=12)
    stop = llm.detokenize(whole.tokens[-1:])
    first = whole.text.index(stop)
    cut = answer(llm, prompts["days"], max_tokens=12, stop=stop)
    assert (cut.text, cut.finish_reason) == (whole.text[:first], "stop")


def test_a_closed_stream_leaves_the_model_usable(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    before = answer(llm, prompts["days"], max_tokens=24)
    stream = llm.stream(prompts["python"], max_tokens=200, temperature=0.0, speculate=DRAFTING)
    for _ in range(5):
        next(stream)
    stream.close()
    assert answer(llm, prompts["days"], max_tokens=24).tokens == before.tokens


def test_a_forgotten_stream_leaves_the_model_usable(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    next(llm.stream(prompts["python"], max_tokens=200))  # dropped at once
    assert answer(llm, prompts["days"], max_tokens=4).tokens


def test_a_grammar_is_parsed_once_and_freed(
    llm: MaskProbeLlama, prompts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, made, freed = [], [], []

    def note(name: str, calls: list[object]) -> None:
        function = getattr(llama_cpp, name)

        def noted(*arguments: object) -> object:
            result = function(*arguments)
            calls.append(result)
            return result

        monkeypatch.setattr(llama_cpp, name, noted)

    note("llama_sampler_init", parsed)
    note("llama_sampler_chain_init", made)
    note("llama_sampler_free", freed)

    def ask(grammar: str = 'root ::= "a"+', **options: Any) -> Generator[Chunk, None, None]:
        return llm.stream(prompts["days"], grammar=grammar, speculate=DRAFTING, **{"max_tokens": 3, **options})

    def counts() -> tuple[int, int, int]:
        gc.collect()
        found = len(parsed), len(made), len(freed)
        for calls in (parsed, made, freed):
            calls.clear()
        return found

    assert "".join(chunk.text for chunk in ask()).strip("a") == ""
    assert counts() == (1, 1, 1)
    ask()  # never started
    assert counts() == (1, 1, 1)
    with closing(ask()) as stream:
        next(stream)
        with pytest.raises(BusyError):
            next(ask())
        assert counts() == (2, 2, 1)
    assert counts() == (0, 0, 1)
    with pytest.raises(ValueError, match="max_tokens"):
        ask(max_tokens=0)
    assert counts() == (1, 1, 1)
    with pytest.raises(ValueError, match="grammar"):
        ask('root ::= "a', logit_bias={3: 1.0})
    assert counts() == (0, 0, 0)
    with pytest.raises(ZeroDivisionError):
        next(ask(before_pass=lambda: 1 / 0))
    assert counts() == (1, 1, 1)


def test_text_is_valid_all_the_way(llm: MaskProbeLlama) -> None:
    prompt = "<|im_start|>user\nWrite emojis: 🦊🌲🚲<|im_end|>\n<|im_start|>assistant\n🦊🌲🚲🦊🌲🚲🦊🌲🚲🦊"
    chunks = list(llm.stream(prompt, max_tokens=24, temperature=0.0, speculate=DRAFTING))
    tokens = [token for chunk in chunks for token in chunk.tokens]
    # Half a character at the end is left out.
    assert "".join(chunk.text for chunk in chunks) == llm.detokenize(tokens).rstrip("\N{REPLACEMENT CHARACTER}")


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=300, deadline=None)
@given(st.text(), st.lists(st.integers(0, 1000)))
def test_any_split_of_a_text_gives_the_text(text: str, cuts: list[int]) -> None:
    stream = TextStream()
    out = "".join(stream.push(piece) for piece in split_at(text.encode(), cuts))
    assert out + stream.finish() == text


@settings(max_examples=500, deadline=None)
@given(
    st.text(alphabet="abé", max_size=30),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 1000)),
)
def test_nothing_leaks_past_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    stream = TextStream(stops)
    out = ""
    for piece in split_at(text.encode(), cuts):
        out += stream.push(piece)
        assert text.startswith(out)
    out += stream.finish()
    ends = [text.index(stop) for stop in stops if stop in text]
    # The stop that is complete first ends the text; no stop may be part of it.
    assert bool(stream.stopped_by) == bool(ends)
    assert not any(stop in out for stop in stops)
    assert not ends or stream.stopped_by in stops
    if len(stops) == 1:
        assert out == (text[: ends[0]] if ends else text)


def test_bytes_that_are_no_text_are_replaced() -> None:
    stream = TextStream()
    assert stream.push(b"a\xffb") + stream.push(b"\xe2\x82c") + stream.finish() == "a\ufffdb\ufffdc"


def test_half_a_character_at_the_end_is_left_out() -> None:
    stream = TextStream(["never there"])
    assert stream.push(b"ab\xe2\x82") + stream.finish() == "ab"
