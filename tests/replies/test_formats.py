"""The table of formats: what it says is what the parser reads, and a template's text tells which format it is."""

from __future__ import annotations

from typing import Any

import pytest
from written_replies import read, values, written

from maskprobe.replies import FORMATS, Format, find_format, named

WITH_CALLS = [form for form in FORMATS.values() if form.calls]
AMID_TEXT = [form for form in WITH_CALLS if not form.channels and not form.calls[0].bare]
UNFRAMED = [form for form in WITH_CALLS if not form.channels and not form.frames]
CALLS: list[tuple[str, dict[str, Any]]] = [
    (
        "get_weather",
        {
            "city": 'Zürich "Mitte"\n{[(</tool_call>',
            "days": 3,
            "exact": True,
            "tags": ["a, b", "c)"],
            "where": {"lat": -47.5, "x": None},
        },
    ),
    ("get_time", {}),
    ("get_weather", {"city": " 007 ", "days": -1}),
]


def names(forms: list[Format]) -> list[str]:
    return [form.name for form in forms]


@pytest.mark.parametrize("form", WITH_CALLS, ids=names(WITH_CALLS))
def test_calls_written_as_the_data_say_are_read_back(form: Format) -> None:
    text = written(form, CALLS)
    for pieces in ([text], list(text)):
        got = read(form, pieces)
        assert values(got.calls) == CALLS
        assert (got.content, got.reasoning, got.leftover) == ("", "", "")


@pytest.mark.parametrize("form", AMID_TEXT, ids=names(AMID_TEXT))
def test_text_and_reasoning_stand_before_calls(form: Format) -> None:
    tags = form.reasoning[0]
    text = f"{tags.begin}I should look.\n{tags.end}\nOne moment.{written(form, CALLS[:1])}"
    got = read(form, list(text))
    assert (got.reasoning, got.content) == ("I should look.", "One moment.")
    assert values(got.calls) == CALLS[:1]


@pytest.mark.parametrize("form", WITH_CALLS, ids=names(WITH_CALLS))
def test_a_trigger_begins_every_written_call_that_is_not_bare(form: Format) -> None:
    text = written(form, CALLS[:1]).lstrip()
    assert form.calls[0].bare or text.startswith(form.triggers)


@pytest.mark.parametrize("form", UNFRAMED, ids=names(UNFRAMED))
def test_without_tools_calls_are_text(form: Format) -> None:
    text = written(form, CALLS)
    assert read(form, list(text), tools=None).content == text


TEMPLATES = {
    "hermes": '{{ \'<tool_call>\\n{"name": "\' + call.name }}</tool_call>',
    "qwen-xml": "<tool_call>\n<function=example>\n<parameter=p>",
    "llama-3": '<|start_header_id|>{"name": function name, "parameters": dictionary}',
    "llama-4": "<|header_start|>assistant<|header_end|>",
    "mistral": "{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}",
    "mistral-json": "[TOOL_CALLS] [",
    "harmony": "<|start|>assistant<|channel|>final<|message|>",
    "deepseek-v3": "'<｜tool▁calls▁begin｜>' '\\n```json\\n'",  # noqa: RUF001
    "deepseek-v3.1": "<｜tool▁calls▁begin｜>",  # noqa: RUF001
    "deepseek-v3.2": "set dsml_token = '｜DSML｜' <invoke name function_calls>",  # noqa: RUF001
    "deepseek-v4": "set dsml_token = '｜DSML｜' <invoke name tool_calls>",  # noqa: RUF001
    "glm": "<tool_call>{name}\n<arg_key>",
    "kimi-k2": "<|tool_calls_section_begin|>",
    "kimi-k3": "<|open|> <|close|> <|end_of_msg|>",
    "gemma-4": "{{- '<|tool_call>call:' + name }}",
    "granite": "<|tool_call|>",
    "lfm2": "List of tools: <|tool_list_start|>[",
    "minimax-m2": "<minimax:tool_call> <invoke name=",
    "plain": "{{ message.content }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_names_its_format(name: str) -> None:
    assert find_format(TEMPLATES[name]).name == name


def test_reasoning_is_found_in_the_template() -> None:
    found = find_format("[TOOL_CALLS] [ARGS] [THINK] [/THINK]")
    assert [tags.begin for tags in found.reasoning] == ["[THINK]"]
    assert find_format("{% set t = '<seed:think>' %} </seed:think>").reasoning[0].end == "</seed:think>"


def test_no_template_is_plain_and_an_unknown_name_an_error_that_lists_those_known() -> None:
    assert find_format(None) == named("plain")
    with pytest.raises(ValueError, match=r"'qwen' is no format of replies: .*hermes"):
        named("qwen")
