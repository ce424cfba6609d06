"""An agent's conversation, as clients send it, in templates that each want it in a form of their own."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from chat_templates import CALLS, HEAD, HISTORY, TOOLS, formats_of, prompt, raising, template

from maskprobe.chat import formats as formats_module
from maskprobe.chat import rendering as rendering_module
from maskprobe.chat.dialects import Dialect, translated
from maskprobe.chat.formats import ChatFormats
from maskprobe.chat.requests import Chat
from maskprobe.errors import ModelError

OSLO = '{"city": "Oslo", "at": {"hour": 12}, "now": true}'

# What the first call, its message and its result become.
FORMS: dict[str, tuple[str, str]] = {
    "objects": (template(), f"<assistant><call get_weather {OSLO}><tool>cold"),
    "text": (template(call="{{ '' + c.function.arguments }}"), f"<assistant><call get_weather {OSLO}><tool>cold"),
    "bare values": (
        template(call="{% for k, v in c.function.arguments.items() %}{{ k }}: {{ v }};{% endfor %}"),
        '<assistant><call get_weather city: Oslo;at: {"hour": 12};now: true;><tool>cold',
    ),
    "Python's literals": (
        template(
            call="({% for k, v in c.function.arguments.items() %}{{ k }}="
            "{% if v is string %}{{ v | tojson }}{% else %}{{ v }}{% endif %}, {% endfor %})"
        ),
        "<assistant><call get_weather (city=\"Oslo\", at={'hour': 12}, now=True, )><tool>cold",
    ),
    "values in quotes": (
        template(
            call="{% for k, v in c.function.arguments.items() %}{{ k }}: "
            '{% if v is string %}"{{ v }}"{% elif v is mapping %}{{ v | tojson }}{% else %}{{ v }}{% endif %};'
            "{% endfor %}"
        ),
        '<assistant><call get_weather city: "Oslo";at: {"hour": 12};now: True;><tool>cold',
    ),
    "content that is added": (
        template(text="{{ m.content + '.' }}"),
        f"<assistant>.<call get_weather {OSLO}><tool>cold.",
    ),
    "content that is none": (
        template(before=raising("m.tool_calls and m.content is not none"), text="{{ m.content or '' }}"),
        f"<assistant><call get_weather {OSLO}><tool>cold",
    ),
    "names of results": (
        template(text="{% if m.role == 'tool' %}{{ m.name }}: {% endif %}{{ m.content }}"),
        f"<assistant><call get_weather {OSLO}><tool>get_weather: cold",
    ),
    "calls that are content": (
        template().replace(CALLS.replace("HERE", "{{ c.function.arguments | tojson }}"), ""),
        f'<assistant><tool_call>\n{{"name": "get_weather", "arguments": {OSLO}}}\n</tool_call><tool>cold',
    ),
    "results of the user's": (
        template(before=raising("m.role not in ['system', 'user', 'assistant']")),
        f"<assistant><call get_weather {OSLO}><user><tool_response>\ncold\n</tool_response>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_calls(name: str) -> None:
    template, expected = FORMS[name]
    text = prompt(template, HISTORY, TOOLS)
    assert expected in text
    for words in ("Be brief.", "Weather?", "It is cold.", "And there?", "Rome", "Bonn", "hot", "wet"):
        assert text.count(words) == 1, words
    assert text.startswith("[1 tools: ")
    assert text.endswith("<assistant>")


def test_ids_that_a_template_refuses_become_others_that_belong_together() -> None:
    checked = raising("m.tool_call_id and m.tool_call_id | length != 9")
    text = prompt(
        template(
            before=checked,
            call="{{ c.id }} {{ c.function.arguments | tojson }}",
            text="{{ m.tool_call_id }}={{ m.content }}",
        ),
        HISTORY,
        TOOLS,
    )
    first = text.split("<call get_weather ")[1].split(" ")[0]
    assert len(first) == 9
    assert first.isalnum()
    assert f"<tool>{first}=cold" in text
    kept = json.loads(json.dumps(HISTORY).replace("call_abc123", "abc123XYZ"))
    assert "<tool>abc123XYZ=cold" in prompt(
        template(
            before=checked,
            call="{{ c.id }} {{ c.function.arguments | tojson }}",
            text="{{ m.tool_call_id }}={{ m.content }}",
        ),
        kept,
        TOOLS,
    )


def test_several_calls_become_messages_of_their_own_with_their_results() -> None:
    text = prompt(template(before=raising("m.tool_calls and m.tool_calls | length > 1")), HISTORY, TOOLS)
    rome, bonn = '<call get_weather {"city": "Rome"}>', '<call get_weather {"city": "Bonn"}>'
    assert f"<assistant>{rome}<tool>hot<assistant>{bonn}<tool>wet" in text


def test_text_beside_calls_that_a_template_drops_becomes_a_message() -> None:
    messages = copy.deepcopy(HISTORY)
    messages[2]["content"] = "I look."
    kept = template()
    assert f"<assistant>I look.<call get_weather {OSLO}>" in prompt(kept, messages, TOOLS)
    dropping = template(text="{{ m.content if not m.tool_calls }}")
    assert f"<assistant>I look.<assistant><call get_weather {OSLO}>" in prompt(dropping, messages, TOOLS)


def test_text_beside_calls_is_not_joined_to_them_again() -> None:
    turns = raising("not loop.first and m.role == loop.previtem.role and not m.tool_calls")
    messages = [*HISTORY[1:4], HISTORY[5]]
    messages[1] = {**messages[1], "content": "I look."}
    text = prompt(template(before=turns, text="{{ m.content if not m.tool_calls }}"), messages, TOOLS)
    assert f"<assistant>I look.<assistant><call get_weather {OSLO}>" in text


def test_nothing_is_lost_or_twice_where_calls_and_results_do_not_match() -> None:
    two = {**HISTORY[6], "content": "I look."}
    stray = {"role": "tool", "tool_call_id": "call_other", "content": "stray"}
    messages, _ = translated(Dialect(one_each=True), [HISTORY[1], two, HISTORY[8], stray], None)
    roles = [(m["role"], m["content"], len(m.get("tool_calls", ()))) for m in messages]
    assert roles == [
        ("user", "Weather?", 0),
        ("assistant", "I look.", 1),
        ("assistant", "", 1),
        ("tool", "wet", 0),
        ("tool", "stray", 0),
    ]


def test_a_call_is_not_joined_to_what_follows() -> None:
    answer = {"role": "assistant", "content": "Well."}
    messages, _ = translated(Dialect(joined=True), [HISTORY[1], HISTORY[2], answer, answer], None)
    assert [m["content"] for m in messages] == ["Weather?", "", "Well.\n\nWell."]


def test_a_result_keeps_the_name_that_it_has() -> None:
    messages = [*HISTORY[:3], {**HISTORY[3], "name": "mine"}]
    assert "mine: cold" in prompt(template(text="{{ m.name ~ ': ' if m.name }}{{ m.content }}"), messages, TOOLS)


def test_reasoning_goes_where_a_template_looks_for_it() -> None:
    messages = copy.deepcopy(HISTORY)
    messages[2]["reasoning_content"] = "Hm."
    for key in ("reasoning_content", "thinking", "reasoning"):
        text = prompt(
            template(text="{% if m." + key + " %}({{ m." + key + " }}){% endif %}{{ m.content }}"), messages, TOOLS
        )
        assert f"<assistant>(Hm.)<call get_weather {OSLO}>" in text
    assert "Hm." not in prompt(template(), messages, TOOLS)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "<system>A<user>B<user>C<assistant>D<system>E<user>F"),
        (raising("m.role == 'system' and not loop.first"), "<system>A<user>B<user>C<assistant>D<user>E<user>F"),
        (raising("m.role == 'system'"), "<user>A<user>B<user>C<assistant>D<user>E<user>F"),
        (
            raising("m.role == 'system' or not loop.first and m.role == loop.previtem.role"),
            "<user>A\n\nB\n\nC<assistant>D<user>E\n\nF",
        ),
        (raising("m.content is string"), "<system>A<user>B<user>C<assistant>D<system>E<user>F"),
    ],
    ids=["anything", "a first system message", "no system message", "turns", "parts"],
)
def test_roles(before: str, expected: str) -> None:
    text = "{{ m.content if m.content is string else m.content[0].text }}"
    roles = ["system", "user", "user", "assistant", "system", "user"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, "ABCDEF", strict=True)]
    assert prompt(template(before=before, text=text), messages) == expected + "<assistant>"


def test_a_system_message_that_a_template_would_move_keeps_its_place() -> None:
    shown = "<{{ m.role }}>{{ m.content }}{% endfor %}"
    moving = "{% for m in messages if m.role == 'system' %}" + shown
    moving += "{% for m in messages if m.role != 'system' %}" + shown
    messages = [{"role": "user", "content": "A"}, {"role": "system", "content": "B"}, {"role": "user", "content": "C"}]
    assert prompt(moving, messages) == "<user>A<user>B<user>C"


def test_developers_are_the_system_unless_a_template_knows_them() -> None:
    messages = [{"role": "developer", "content": "Rules"}, {"role": "user", "content": "Hi"}]
    assert prompt(template(), messages) == "<system>Rules<user>Hi<assistant>"
    refusing = raising("m.role not in ['system', 'user', 'assistant']")
    assert prompt(template(before=refusing), messages) == "<system>Rules<user>Hi<assistant>"
    knowing = "{% if m.role == 'developer' %}# {% endif %}"
    assert prompt(template(before=knowing), messages) == "# <developer>Rules<user>Hi<assistant>"


def test_tools_are_left_out_rather_than_none() -> None:
    counting = "{% if tools is defined %}{{ tools | length }} tools{% endif %}{{ messages[0].content }}"
    messages = [{"role": "user", "content": "Hi"}]
    assert prompt(counting, messages) == "Hi"
    assert prompt(counting, messages, []) == "Hi"


def test_tools_that_a_template_does_not_show_are_described() -> None:
    silent = template().removeprefix(HEAD)
    text = prompt(silent, HISTORY, TOOLS)
    assert text.startswith("<system>Be brief.\n\n")
    assert json.dumps(TOOLS[0]) in text
    assert "NAME" not in text  # the template shows how calls are written
    mute = silent.replace(CALLS.replace("HERE", "{{ c.function.arguments | tojson }}"), "")
    assert '<tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call>' in prompt(mute, HISTORY, TOOLS)
    question = [{"role": "user", "content": "Hi"}]
    for choice, told in (("auto", True), ("none", False)):
        chat = Chat(question, TOOLS, {"tool_choice": choice})
        rendering = formats_of(mute).rendering(chat)
        assert ("get_weather" in rendering.prompt(rendering.translated(chat)).text) == told
        assert rendering.tells_how_to_call(chat)
    assert not formats_of(silent).rendering(chat).tells_how_to_call(chat)
    assert prompt(mute, question) == "<user>Hi<assistant>"
    assert prompt(mute, question, TOOLS).startswith("<system>You may call these functions")


def test_a_tool_that_a_template_stumbles_over_is_described() -> None:
    picky = template() + "{% for t in tools %}" + raising("t.function.parameters.type is not string") + "{% endfor %}"
    assert prompt(picky, HISTORY, TOOLS).startswith("[1 tools")
    union = copy.deepcopy(TOOLS)
    union[0]["function"]["parameters"]["type"] = ["object", "null"]
    assert prompt(picky, HISTORY, union).startswith("<system>Be brief.\n\nYou may call these functions")


def test_tools_as_text_in_the_variable_functions() -> None:
    text = prompt("{{ 'Functions: ' + functions + datetime }}" + template().removeprefix(HEAD), HISTORY, TOOLS)
    assert text.startswith("Functions: " + json.dumps([TOOLS[0]["function"]]) + "<system>")
    assert prompt("{{ 'Functions: ' + functions }}", [{"role": "user", "content": "Hi"}]) == "Functions: "


def test_the_template_for_tools_is_taken_where_there_are_some() -> None:
    formats = formats_of("plain:" + template(), **{"tokenizer.chat_template.tool_use": "tools:" + template()})
    question = [{"role": "user", "content": "Hi"}]
    assert prompt(formats, question) == "plain:<user>Hi<assistant>"
    assert prompt(formats, question, TOOLS).startswith("tools:[1 tools")
    assert prompt(formats, HISTORY).startswith("tools:<system>")
    assert formats.template(tools=True) == "tools:" + template()
    named = ChatFormats(
        "model.gguf",
        {"tokenizer.chat_template": "own", "tokenizer.chat_template.tool_use": "own"},
        "",
        "",
        None,
        None,
        template(),
    )
    assert prompt(named, question, TOOLS).startswith("[1 tools")


RENDERED = {
    "lists that grow": (
        "{% set l = [] %}{% for m in messages %}{{ l.append(m.content) or '' }}{% endfor %}{{ l | join }}",
        "né<",
    ),
    "generators in JSON": ("{{ messages | map(attribute='content') | tojson }}", '["né<"]'),
    "nothing in JSON": ("{{ messages[0].content }}{{ missing | tojson }}", "né<null"),
    "attributes of nothing": ("{{ messages[0].content }}{% if missing.deeper.still %}x{% endif %}", "né<"),
    "text after nothing": ("{{ missing + messages[0].content + missing.deeper }}", "né<"),
    "generation tags": (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "né<",
    ),
    "loop controls": ("{% for m in messages %}{{ m.content }}{% break %}{% endfor %}", "né<"),
    "time": ("{{ messages[0].content }}{{ strftime_now('%Y') | length }}", "né<4"),
    "white space": (
        "{% for m in messages %}\n    {% if m %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n",
        "né<\n",
    ),
    "special tokens": ("{{ bos_token + messages[0].content + eos_token }}", "<s>né<</s>"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_what_templates_rely_on(name: str) -> None:
    template, expected = RENDERED[name]
    assert prompt(template, [{"role": "user", "content": "né<"}]) == expected


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", '"Oslo"', "3"])
def test_arguments_that_are_no_object_are_refused_by_their_place(arguments: str) -> None:
    messages = copy.deepcopy(HISTORY)
    messages[2]["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(ValueError, match=r"messages\[2\]\.tool_calls\[0\]\.function\.arguments"):
        prompt(template(), messages, TOOLS)
    assert f"<call get_weather {arguments}>" in prompt(
        template(call="{{ '' + c.function.arguments }}"), messages, TOOLS
    )


@pytest.mark.parametrize(
    ("arguments", "shown"), [("", "{}"), (" ", "{}"), (None, "{}"), ({"city": "Oslo"}, '{"city": "Oslo"}')]
)
def test_arguments_may_be_left_out_or_be_objects(arguments: Any, shown: str) -> None:
    messages = copy.deepcopy(HISTORY)
    messages[2]["tool_calls"][0]["function"]["arguments"] = arguments
    assert f"<call get_weather {shown}>" in prompt(template(), messages, TOOLS)


@pytest.mark.parametrize("calls", [[{}], [{"function": {}}], ["get_weather"], [{"function": {"name": 3}}]])
def test_calls_that_are_none_are_refused_by_their_place(calls: Any) -> None:
    with pytest.raises(ValueError, match=r"messages\[1\]\.tool_calls\[0\] must hold a function"):
        prompt(template(), [HISTORY[1], {"role": "assistant", "tool_calls": calls}], TOOLS)


def test_what_clients_send_as_null_is_not_there() -> None:
    nulls = {"tool_calls": None, "function_call": None, "refusal": None, "audio": None}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"} | nulls,
        {"role": "user", "content": "A"},
    ]
    counting = "{% for m in messages %}{{ m.content }}{{ m | length }}{% endfor %}"
    assert prompt(counting, messages) == "Hi2Yes?2A2"


def test_messages_stay_as_they_are() -> None:
    before = copy.deepcopy(HISTORY)
    changing = template(before="{% if m.tool_calls %}{{ m.tool_calls.append(m.tool_calls[0]) or '' }}{% endif %}")
    first, second = (prompt(changing, HISTORY, TOOLS) for _ in range(2))
    assert first == second
    assert before == HISTORY
    growing = template() + "{{ tools.append(tools[0]) or '' }}"
    assert prompt(growing, HISTORY, TOOLS).startswith("[1 tools")
    assert len(TOOLS) == 1


def test_a_template_is_tried_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("find_chat_dialect", "find_agent_dialect"):
        inner = getattr(rendering_module, name)
        monkeypatch.setattr(rendering_module, name, lambda *a, name=name, inner=inner: found.append(name) or inner(*a))
    formats = formats_of(template())
    for _ in range(3):
        prompt(formats, [{"role": "user", "content": "Hi"}])
    assert found == ["find_chat_dialect"]
    for _ in range(3):
        prompt(formats, HISTORY, TOOLS)
    assert found == ["find_chat_dialect", "find_agent_dialect"]


def test_trying_out_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_module, "TEMPLATE_SECONDS", 0.2)
    slow = "{% for a in range(9999) %}{% for b in range(99) %}{% endfor %}{% endfor %}" + raising("tools")
    with pytest.raises(ModelError, match="does not end"):
        prompt(slow * 3, HISTORY, TOOLS)
