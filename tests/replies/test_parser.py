"""What is reasoning, answer, call or leftover in a reply; each text is read whole and one character at a time."""

from __future__ import annotations

from typing import Any

import pytest
from written_replies import TOOLS, Read, read, values

from maskprobe.replies import CallArguments, CallBegins, CallEnds, Content, named

WEATHER = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
ROME: list[tuple[str, Any]] = [("get_weather", {"city": "Rome"})]


def both(name: str, text: str, **options: Any) -> Read:
    whole = read(named(name), [text], **options)
    assert read(named(name), list(text), **options) == whole
    return whole


def test_a_call_comes_out_once_it_is_whole() -> None:
    parser = named("hermes").parser(TOOLS)
    assert parser.feed(WEATHER[:-20]) == []
    events = parser.feed(WEATHER[-20:])
    assert events == [CallBegins(0, "get_weather"), CallArguments(0, '{"city": "Rome"}'), CallEnds(0)]


def test_text_comes_out_as_it_is_written() -> None:
    parser = named("hermes").parser(TOOLS)
    assert parser.feed("Hello") == [Content("Hello")]
    assert parser.feed(" wor") == [Content(" wor")]
    assert parser.feed("ld <to") == [Content("ld")]
    assert parser.feed("ol>") == [Content(" <tool>")]


def test_arguments_are_the_models_own_text() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"x":1e-05,  "y": 1.50, "z": 12345678901234567890}}</tool_call>'
    assert both("hermes", text).calls == [("f", '{"x":1e-05,  "y": 1.50, "z": 12345678901234567890}')]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('"{\\"city\\": \\"Rome\\"}"', {"city": "Rome"}),
        ("null", {}),
        ('{"city": "Ro\nme"}', {"city": "Ro\nme"}),
        ('{"city": "Oslo", "city": "Rome"}', {"city": "Rome"}),
        ('{"city": "\\ud83d"}', {"city": "\ud83d"}),
    ],
)
def test_what_is_nearly_an_object_becomes_one(arguments: str, expected: dict[str, Any]) -> None:
    got = both("hermes", f'<tool_call>{{"name": "get_weather", "arguments": {arguments}}}</tool_call>')
    assert values(got.calls) == [("get_weather", expected)]
    got.calls[0][1].encode()


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>not json</tool_call>",
        "Write <tool_call> before a call.",
        '<tool_call>{"name": "get_weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": Rome}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"a": NaN}}</tool_call>',
        "a < b, a <t b, <tool_cal",
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    assert both("hermes", text) == Read(text, "", [], "", [])


def test_a_call_after_what_is_none() -> None:
    got = both("hermes", f"<tool_call> starts a call: {WEATHER}")
    assert got.content == "<tool_call> starts a call:"
    assert values(got.calls) == ROME


def test_what_the_end_cut_off_is_a_leftover_and_no_call() -> None:
    cut = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ro'
    got = both("hermes", f"Wait. {WEATHER}\n{cut}")
    assert (got.content, got.leftover) == ("Wait.", cut)
    assert values(got.calls) == ROME


def test_a_call_whose_closing_tag_is_missing_is_whole() -> None:
    assert values(both("hermes", WEATHER.removesuffix("\n</tool_call>")).calls) == ROME


def test_markers_within_arguments_are_text() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"a": "</tool_call> <tool_call> <think> \\" }}"}}</tool_call>'
    assert values(both("hermes", text).calls) == [("f", {"a": '</tool_call> <tool_call> <think> " }}'})]


def test_reasoning_counts_at_the_start_only() -> None:
    got = both("hermes", "\n<think>\nHm.\n</think>\n\nUse <think> and </think> as tags.")
    assert (got.reasoning, got.content) == ("Hm.", "Use <think> and </think> as tags.")


@pytest.mark.parametrize("prompt_end", ["<|im_start|>assistant\n<think>\n", "<think>\nHm,"])
def test_the_prompt_may_have_opened_reasoning(prompt_end: str) -> None:
    got = both("hermes", "I see.\n</think>\n\nYes.", prompt_end=prompt_end)
    assert (got.reasoning, got.content) == ("I see.", "Yes.")


def test_the_prompt_may_have_closed_reasoning() -> None:
    got = both("hermes", "Yes.", prompt_end="<think>\n\n</think>\n\n")
    assert (got.reasoning, got.content) == ("", "Yes.")


@pytest.mark.parametrize(
    "prompt_end",
    [
        "What is <think>?<|im_end|>\n<|im_start|>assistant\n",
        "Say <think>[/INST]",
        "<think>?<｜Assistant｜>",  # noqa: RUF001
        "<think>?<end_of_turn>\n<start_of_turn>model\n",
    ],
)
def test_a_message_that_speaks_of_reasoning_opens_none(prompt_end: str) -> None:
    assert both("hermes", "A tag.", prompt_end=prompt_end).content == "A tag."


def test_reasoning_without_an_end_is_reasoning() -> None:
    assert both("plain", "<think>I should ").reasoning == "I should "


def test_a_call_drafted_in_reasoning_is_none() -> None:
    got = both("hermes", f"<think>Maybe {WEATHER} or not.</think>No.")
    assert (got.reasoning, got.content, got.calls) == (f"Maybe {WEATHER} or not.", "No.", [])
    got = both("hermes", f"<think>Maybe {WEATHER}\n</think>No.")
    assert (got.reasoning, got.content, got.calls) == (f"Maybe {WEATHER}", "No.", [])


def test_a_reply_that_ends_with_calls_in_reasoning_calls() -> None:
    got = both("hermes", f"<think>I look it up.\n{WEATHER}\n{WEATHER}\n")
    assert (got.reasoning, got.content, values(got.calls)) == ("I look it up.", "", ROME * 2)


def test_bare_calls_need_a_tools_name_at_the_start() -> None:
    text = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
    assert values(both("llama-3", text).calls) == ROME
    assert values(both("llama-3", f"{text}; {text}").calls) == ROME * 2
    for other in (
        '{"name": "Ann", "parameters": {}}',
        '{"a": 1} is a dict',
        f"So: {text}",
        "{}",
        '{"name": "get_time"}',
    ):
        assert both("llama-3", other) == Read(other, "", [], "", [])
    assert values(both("llama-3", f"Sure. <|python_tag|>{text}").calls) == ROME


def test_a_bare_list_counts_once_it_is_closed() -> None:
    assert values(both("llama-4", "[get_weather(city='Rome'), get_time()]").calls) == [*ROME, ("get_time", {})]
    for cut in ("[get_weather(city='Rome'), get_time(", "[get_weather(city='Rome')", "[get_weather(city='Rome'), "):
        assert (both("llama-4", cut).calls, both("llama-4", cut).leftover) == ([], cut)
    for other in ("[get_weather is a tool]", "[see](http://x)", "[]", "[other(a=1)]"):
        assert both("llama-4", other).content == other


def test_pythons_strings_as_models_write_them() -> None:
    got = both("lfm2", "<|tool_call_start|>[f(a='it\\'s\n\\d', b=true, c=None, d=(1, 2))]<|tool_call_end|>")
    assert values(got.calls) == [("f", {"a": "it's\n\\d", "b": True, "c": None, "d": [1, 2]})]


def test_ids_that_the_model_writes() -> None:
    assert both("mistral", "[TOOL_CALLS]f[CALL_ID]a1[ARGS]{}[TOOL_CALLS]g[ARGS]{}").ids == ["a1", None]
    assert both("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": "abcdefghi"}]').ids == ["abcdefghi"]
    assert both("mistral", '[TOOL_CALLS]f{"a": 1}').calls == [("f", '{"a": 1}')]
    calls = "<|tool_call_begin|>functions.f:3<|tool_call_argument_begin|>{}<|tool_call_end|>"
    got = both("kimi-k2", f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>")
    assert (got.calls, got.ids) == ([("f", "{}")], ["functions.f:3"])


def xml(parameters: str) -> str:
    return f"<tool_call>\n<function=f>\n{parameters}</function>\n</tool_call>"


TYPED: dict[str, Any] = {
    "name": "f",
    "parameters": {
        "$defs": {"size": {"enum": [1, 2]}},
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "share": {"type": "number"},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "maybe": {"type": ["string", "null"]},
            "flag": {"type": "boolean"},
            "items": {"type": "array"},
            "size": {"$ref": "#/$defs/size"},
            "loop": {"$ref": "#/properties/loop"},
        },
    },
}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("text", "1", "1"),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", "  two\n\n", "  two\n\n"),
        ("text", "null", "null"),
        ("count", "1", 1),
        ("count", "2.0", 2),
        ("count", "many", "many"),
        ("share", "1e20", 1e20),
        ("either", "5", 5),
        ("either", "05", "05"),
        ("maybe", "null", None),
        ("flag", "True", True),
        ("items", "['a', None]", ["a", None]),
        ("size", "2", 2),
        ("loop", "x", "x"),
        ("unknown", "[1]", [1]),
        ("unknown", "word", "word"),
    ],
)
def test_bare_values_get_the_type_that_the_schema_allows(key: str, text: str, expected: Any) -> None:
    got = both("qwen-xml", xml(f"<parameter={key}>\n{text}\n</parameter>\n"), tools=[{"function": TYPED}])
    assert values(got.calls) == [("f", {key: expected})]
    assert type(values(got.calls)[0][1][key]) is type(expected)


def test_a_value_may_hold_the_texts_that_end_it() -> None:
    value = "close with </parameter> or </function>\n</tool_call>; <parameter=x>"
    got = both("qwen-xml", xml(f"<parameter=text>\n{value}\n</parameter>\n"))
    assert values(got.calls) == [("f", {"text": value})]


def test_values_whose_end_is_forgotten() -> None:
    tools = [{"function": TYPED}]
    got = both("qwen-xml", xml("<parameter=text>\na\n<parameter=count>\n1\n</parameter>\n"), tools=tools)
    assert values(got.calls) == [("f", {"text": "a", "count": 1})]
    got = both("qwen-xml", xml("<parameter=text>\na\n"), tools=tools)
    assert values(got.calls) == [("f", {"text": "a"})]


def test_text_round_calls() -> None:
    got = both("hermes", f"One. {WEATHER}\nTwo.\n{WEATHER}\n")
    assert (got.content, values(got.calls)) == ("One.\nTwo.", ROME * 2)
    call = '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>}<tool_call|>'
    assert both("gemma-4", f"One {call} two {call}").content == "One  two "


def test_a_call_without_its_first_marker() -> None:
    got = both("qwen-xml", xml("").removeprefix("<tool_call>\n") + "\nDone.")
    assert (got.calls, got.content) == ([("f", "{}")], "Done.")
    call = '<|tool_call_begin|>f:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>'
    assert both("kimi-k2", call).calls == [("f", '{"a": 1}')]


def test_channels() -> None:
    text = (
        "<|channel|>analysis<|message|>Hm <|call|>.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>"
        "<|start|>assistant<|channel|>final<|message|>Done."
    )
    got = both("harmony", text)
    assert (got.reasoning, got.content, got.calls) == ("Hm <|call|>.", "I look.Done.", [("f", "{}")])
    got = both("harmony", " plan.<|end|>", prompt_end="<|start|>assistant<|channel|>analysis<|message|>My")
    assert (got.reasoning, got.content) == ("plan.", "")


def test_channels_that_are_garbled() -> None:
    assert both("harmony", "Just text.").content == "Just text."
    assert both("harmony", "<|channel|>commentary to=python<|message|>print(1)").leftover == "print(1)"
    assert both("harmony", "<|channel|>commentary to=functions.f<|message|>no json<|end|>").content == "no json"
    cut = '<|channel|>commentary to=functions.f<|message|>{"a'
    assert both("harmony", cut).calls == []
    assert both("harmony", "<|channel|>??<|end|><|start|>assistant<|channel|>final<|message|>Yes").content == "??Yes"
