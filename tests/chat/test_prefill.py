"""Prompts that go on where a message of the assistant's ends, and variables of templates."""

from __future__ import annotations

from typing import Any

import pytest
from chat_templates import TOOLS, call, formats_of, prompt, raising

from maskprobe.chat.formats import ChatFormats
from maskprobe.errors import ModelError

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
HI = {"role": "user", "content": "Hi"}
BEGUN = {"role": "assistant", "content": "Well, "}


def test_a_last_message_of_the_assistants_is_continued() -> None:
    assert prompt(TEMPLATE, [HI, BEGUN]) == "<user>Hi<end><assistant>Well, "
    assert prompt(TEMPLATE, [HI, BEGUN], continue_final_message=True) == "<user>Hi<end><assistant>Well, "
    parts = {"role": "assistant", "content": [{"type": "text", "text": "Well, "}]}
    assert prompt(TEMPLATE, [HI, parts]) == "<user>Hi<end><assistant>Well, "


def test_it_is_not_where_a_new_answer_or_none_is_asked_for() -> None:
    again = "<user>Hi<end><assistant>Well, <end>"
    assert prompt(TEMPLATE, [HI, BEGUN], continue_final_message=False) == again + "<assistant>"
    assert prompt(TEMPLATE, [HI, BEGUN], add_generation_prompt=False) == again
    assert prompt(TEMPLATE, [HI], add_generation_prompt=False) == "<user>Hi<end>"
    whole = {"add_generation_prompt": False, "continue_final_message": True}
    assert prompt(TEMPLATE, [HI, BEGUN], **whole) == "<user>Hi<end><assistant>Well, "


def test_reasoning_is_continued_where_there_is_no_answer() -> None:
    thinking = {"role": "assistant", "content": None, "reasoning_content": "Let me"}
    assert prompt(TEMPLATE, [HI, thinking]) == "<user>Hi<end><assistant><think>Let me"
    answered = thinking | {"content": "So"}
    assert prompt(TEMPLATE, [HI, answered]) == "<user>Hi<end><assistant><think>Let me</think>So"
    silent = TEMPLATE.replace("{{ m.reasoning_content }}", "")
    with pytest.raises(ValueError, match="does not continue the last"):
        prompt(silent, [HI, thinking])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TEMPLATE.replace("m.content", "m.content | trim"), "<user>Hi<end><assistant>Well, "),
        (raising("messages[-1].role == 'assistant'") + TEMPLATE, "<user>Hi<end><assistant>Well, "),
        (TEMPLATE.replace("{{ m.content }}", "{{ m.content if m.role == 'user' }}"), "<user>Hi<end><assistant>Well, "),
        (TEMPLATE.replace("{{ m.content }}", "<final>{{ m.content }}"), "<user><final>Hi<end><assistant><final>Well, "),
    ],
    ids=["trims", "refuses", "drops", "has a channel"],
)
def test_templates_of_other_kinds(template: str, expected: str) -> None:
    assert prompt(template, [HI, BEGUN]) == expected


def test_what_cannot_be_continued_is_refused() -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [call("call_1", city="Oslo")]}
    for last in (HI, calling, {"role": "tool", "tool_call_id": "call_1", "content": "cold"}):
        with pytest.raises(ValueError, match="continue_final_message needs a last message of the assistant's"):
            prompt(TEMPLATE, [HI, last], continue_final_message=True)
    assert prompt(TEMPLATE, [HI, calling], TOOLS).endswith("<assistant>")
    for name in ("continue_final_message", "add_generation_prompt"):
        with pytest.raises(TypeError, match=name):
            prompt(TEMPLATE, [HI, BEGUN], **{name: "yes"})


def test_named_formats_are_continued_too() -> None:
    chatml = ChatFormats("model.gguf", {}, "", "", "chatml", None)
    assert prompt(chatml, [HI, BEGUN]).endswith("<|im_start|>assistant\nWell, ")


# --- variables ----------------------------------------------------------------------------------------

SWITCHES = (
    "{% for name in ['enable_thinking', 'thinking', 'reasoning_effort', 'reasoning_strength', 'colour'] %}{% endfor %}"
    "{{ [enable_thinking is defined and enable_thinking, thinking is defined and thinking,"
    " reasoning_effort or '', reasoning_strength or '', colour or ''] | tojson }}"
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, '[false, false, "", "", ""]'),
        ({"chat_template_kwargs": {"enable_thinking": True, "colour": "red"}}, '[true, true, "", "", "red"]'),
        ({"chat_template_kwargs": {"enable_thinking": True, "thinking": False}}, '[true, false, "", "", ""]'),
        ({"reasoning_effort": "low"}, '[false, false, "low", "low", ""]'),
        ({"reasoning_effort": "none"}, '[false, false, "", "", ""]'),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, '[true, true, "", "", ""]'),
        ({"reasoning_effort": None, "chat_template_kwargs": None}, '[false, false, "", "", ""]'),
    ],
)
def test_variables_reach_the_template(options: dict[str, Any], expected: str) -> None:
    assert prompt(SWITCHES, [HI], **options) == expected


def test_effort_none_is_a_switch_that_is_off() -> None:
    switch = "{% if enable_thinking is not defined %}as ever{% elif not enable_thinking %}off{% endif %}"
    assert prompt(switch, [HI]) == "as ever"
    assert prompt(switch, [HI], reasoning_effort="none") == "off"


@pytest.mark.parametrize(
    "name", ["messages", "tools", "functions", "tool_choice", "add_generation_prompt", "bos_token"]
)
def test_a_variable_cannot_stand_for_what_the_request_says(name: str) -> None:
    with pytest.raises(ValueError, match=f"chat_template_kwargs cannot set '{name}'"):
        prompt(TEMPLATE, [HI], chat_template_kwargs={name: []})


@pytest.mark.parametrize(
    "options", [{"chat_template_kwargs": [1]}, {"reasoning_effort": 3}, {"chat_template_kwargs": "enable_thinking"}]
)
def test_variables_of_other_types_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        prompt(TEMPLATE, [HI], **options)


def test_a_template_of_the_callers() -> None:
    own = {"tokenizer.chat_template": "own"}
    given = ChatFormats("model.gguf", own, "", "", None, None, TEMPLATE)
    assert prompt(given, [HI]) == "<user>Hi<end><assistant>"
    with pytest.raises(ValueError, match="chat_template is no Jinja template: line 2"):
        ChatFormats("model.gguf", own, "", "", None, None, "{{ bos_token }}\n{% if %}")
    with pytest.raises(ValueError, match="exclude each other"):
        ChatFormats("model.gguf", own, "", "", "chatml", None, TEMPLATE)
    with pytest.raises(TypeError, match="chat_template must be the text"):
        ChatFormats("model.gguf", own, "", "", None, None, "")
    with pytest.raises(ModelError, match="has no chat template"):
        prompt(ChatFormats("model.gguf", {}, "", "", None, None), [HI])
    assert formats_of(TEMPLATE).template() == TEMPLATE
