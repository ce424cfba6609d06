"""Whatever a model writes: nothing raises, nothing is lost, pieces make no difference, and time grows with length."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from bench.tool_calls import format_of
from canitoolcall.fixtures import Fixture, load_fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from written_replies import TOOLS, read, written

from maskprobe.replies import FORMATS, Format, named
from maskprobe.replies.notations import Braced, NamedJson, Tagged

FORMS = [*FORMATS.values(), named("plain")]
FIXTURES = load_fixtures()
CALL = ("get_weather", {"city": "Zürich", "days": 2, "where": {"a": [1, None]}})


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    """The text cut at these places, counted round its length."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:stop] for start, stop in pairwise(places)]


def markers(form: Format) -> list[str]:
    """All that the format's data mention."""
    texts = [text for tags in form.reasoning for text in (tags.begin, tags.end)] + list(form.frames)
    for calls in form.calls:
        texts += [calls.begin, calls.open, calls.close, calls.between, calls.end]
        match calls.shape:
            case Tagged(name, key, values, value_end, end):
                texts += [*name, key, *(start for start, _ in values), value_end, end]
            case NamedJson(then, before_id, prefix):
                texts += [then, before_id or "", prefix]
            case Braced(quote):
                texts.append(quote)
    if form.channels:
        texts += ["<|channel|>analysis", "<|channel|>final", "<|message|>", "<|end|>", "<|start|>assistant"]
    if form.calls:
        texts += [written(form, [CALL]), written(form, [CALL, ("get_time", {})])]
    return [text for text in texts if text]


PARTS = ["{", "}", "[", "]", '"', "\\", ":", ",", " ", "\n", "(", ")", "=", "'", "<", "</", "|>", "a", "ü", "1.5e3"]
PARTS += ["get_time", "true", "to=functions.f", '{"name": "get_time", "arguments": {}}', "get_time()", "\x00", "\ud800"]


@st.composite
def replies(draw: st.DrawFn) -> tuple[Format, str, str]:
    """A format, a prompt's end and a text of its markers, its calls and anything else."""
    form = draw(st.sampled_from(FORMS))
    parts = st.one_of(st.sampled_from(PARTS), st.sampled_from([*markers(form), " "]), st.text(max_size=5))
    prompt_end = draw(st.sampled_from(["", *(tags.begin for tags in form.reasoning)]))
    return form, prompt_end, "".join(draw(st.lists(parts, max_size=25)))


@settings(max_examples=400, deadline=None)
@given(replies(), st.lists(st.integers(0, 10_000), max_size=30))
def test_pieces_make_no_difference_and_calls_are_whole(reply: tuple[Format, str, str], cuts: list[int]) -> None:
    form, prompt_end, text = reply
    whole = read(form, [text], prompt_end=prompt_end)
    assert read(form, list(text), prompt_end=prompt_end) == whole
    assert read(form, pieces_of(text, cuts), prompt_end=prompt_end) == whole
    for _, arguments in whole.calls:
        assert isinstance(json.loads(arguments), dict)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FIXTURES), st.lists(st.integers(0, 10_000), max_size=30))
def test_recorded_replies_in_any_pieces(fixture: Fixture, cuts: list[int]) -> None:
    form, text, prompt_end = format_of(fixture), fixture.raw_output, fixture.generation_prompt or ""
    whole = read(form, [text], tools=fixture.tools, prompt_end=prompt_end)
    assert read(form, pieces_of(text, cuts), tools=fixture.tools, prompt_end=prompt_end) == whole


@settings(max_examples=200, deadline=None)
@given(replies())
def test_without_tools_every_character_comes_out(reply: tuple[Format, str, str]) -> None:
    form, prompt_end, text = reply
    if form.channels:
        form = named("plain")
    got = read(form, list(text), tools=None, prompt_end=prompt_end)
    out = got.reasoning + got.content + got.leftover
    tags = {text.strip() for tags in form.reasoning for text in (tags.begin, tags.end)}
    for marker in sorted({*form.frames, *tags}, key=len):
        out, text = out.replace(marker, ""), text.replace(marker, "")
    assert "".join(out.split()) == "".join(text.split())


@pytest.mark.parametrize("form", [form for form in FORMS if form.calls], ids=lambda form: form.name)
def test_cut_anywhere_a_call_is_whole_or_left_over(form: Format) -> None:
    before = "" if form.channels or form.calls[0].bare else "So: "
    text = before + written(form, [CALL])
    for stop in range(len(text)):
        got = read(form, [text[:stop]])
        assert not got.reasoning
        assert got.calls in ([], read(form, [text]).calls)
        if not got.calls:
            assert got.content.strip() == before.strip() or not any(mark in text[:stop] for mark in form.triggers)
            assert "".join((got.content + got.leftover).split()) == "".join(text[:stop].split())


ENDLESS = {
    "a string": ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "', "</tool_call> "),
    "brackets": ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ', "["),
    "markers": ("hermes", "", "<tool_call>"),
    "blanks": ("hermes", "a", " "),
    "drafts": ("hermes", "<think>", '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n'),
    "a value": ("qwen-xml", "<tool_call>\n<function=f>\n<parameter=a>\n", "</parameter> <parameter=b> "),
    "values": ("qwen-xml", "<tool_call>\n<function=f>\n", "<parameter=a>\nx\n</parameter>\n"),
    "openings": ("qwen-xml", "", "<tool_call>\n<function=f>\n<parameter=a>\n"),
    "calls within a call that is none": ("lfm2", "", "<|tool_call_start|>[f("),
    "headers": ("harmony", "", "<|channel|>"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_time_grows_with_length_and_not_faster(case: str) -> None:
    name, start, more = ENDLESS[case]

    def seconds(length: int) -> float:
        text = (start + more * (length // len(more)))[: length - 1] + "}"
        parser = named(name).parser(TOOLS)
        begun = time.process_time()
        for place in range(0, length, 32):
            parser.feed(text[place : place + 32])
        parser.finish()
        return time.process_time() - begun

    short = min(seconds(1 << 15) for _ in range(2))
    assert seconds(1 << 19) < 16 * 5 * max(short, 0.002)  # were it quadratic, it would be 256 times as long
