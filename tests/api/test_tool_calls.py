"""Chats with tools and reasoning: what is read from the model's text, and what it may write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from maskprobe import MaskProbeLlama
from maskprobe.chat.prompts import Prompts
from maskprobe.replies import FORMATS, Format, named
from maskprobe.replies.notations import Calls, JsonObject, Tags

HELLO = [{"role": "user", "content": "Hello!"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
}
SWITCH = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
LIGHT = {"type": "function", "function": {"name": "switch_light", "parameters": SWITCH}}
SCHEMAS = {"get_weather": CITY, "switch_light": SWITCH}
TOOLS = [WEATHER, LIGHT]
# Markers that are control tokens of the embedded model, as many models have them.
CONTROL = Format(
    "control",
    (Calls(JsonObject(), open="<jupyter_code>", close="<jupyter_output>"),),
    reasoning=(Tags("<issue_start>", "<issue_closed>"),),
)
OSLO = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
ROME = OSLO.replace("Oslo", "Rome")


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=1024, n_threads=1) as llm:
        yield llm


@pytest.fixture
def speaking(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> Callable[[Format], MaskProbeLlama]:
    """The model, taken for one that writes in a format."""

    def get(form: Format) -> MaskProbeLlama:
        monkeypatch.setattr(llm, "reply_format", form)
        llm.reset()
        return llm

    return get


def bias_of(llm: MaskProbeLlama, **of_controls: float) -> dict[int, float]:
    """Biases of control tokens by name, and one against white space, of which a small model finds no end."""
    pieces = ((token, llm.piece(token)) for token in range(llm.n_vocab()))
    blank = {token: -100.0 for token, piece in pieces if set(piece) & set(b"\n\t") or piece.startswith(b"  ")}
    return blank | {llm.tokenize(f"<{name}>", add_bos=False)[0]: bias for name, bias in of_controls.items()}


def forced(llm: MaskProbeLlama, text: str) -> str:
    """A grammar that allows one text only."""
    pieces = llm.control_tokens.split(text)
    return "root ::= " + " ".join(f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece) for piece in pieces)


def answer(llm: MaskProbeLlama, **options: Any) -> dict[str, Any]:
    """The choice of an answer, held to what a stream of it gives."""
    options = {"messages": HELLO, "temperature": 0.0, "seed": 1, "max_tokens": 120, **options}
    llm.reset()  # a prompt that is reused may round otherwise
    [choice] = llm.create_chat_completion(**options)["choices"]
    llm.reset()
    chunks = [chunk["choices"][0] for chunk in llm.create_chat_completion(stream=True, **options)]
    assert chunks[0]["delta"] == {"role": "assistant"}
    assert [chunk["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["finish_reason"] == choice["finish_reason"]
    message = choice["message"]
    for key in ("content", "reasoning_content"):
        pieces = [chunk["delta"][key] for chunk in chunks if key in chunk["delta"]]
        assert "".join(pieces) == (message.get(key) or "")
    calls: list[dict[str, Any]] = []
    for call in (call for chunk in chunks for call in chunk["delta"].get("tool_calls", ())):
        if call["index"] == len(calls):
            assert call.keys() == {"index", "id", "type", "function"}
            calls.append(call["function"])
        else:
            assert call.keys() == {"index", "function"}
            assert call["function"].keys() == {"arguments"}
            calls[call["index"]]["arguments"] += call["function"]["arguments"]
    assert calls == functions_of(choice)
    scored = [chunk["logprobs"]["content"] for chunk in chunks if chunk["logprobs"]]
    assert [token for tokens in scored for token in tokens] == (choice["logprobs"] or {"content": []})["content"]
    return dict(choice)


def functions_of(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return [call["function"] for call in choice["message"].get("tool_calls", ())]


# --- what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("speculate", [False, True])
def test_reasoning_answer_and_calls_are_told_apart(
    speaking: Callable[[Format], MaskProbeLlama], speculate: bool
) -> None:
    llm = speaking(CONTROL)
    calls = f"<jupyter_code>{OSLO}<jupyter_output><jupyter_code>{ROME}<jupyter_output>"
    text = f"<issue_start>The user greets.<issue_closed>Hello.{calls}"
    choice = answer(llm, tools=TOOLS, grammar=forced(llm, text), speculate=speculate)
    message = choice["message"]
    assert message["reasoning_content"] == "The user greets."
    assert message["content"] == "Hello."
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"] * 2
    assert [json.loads(call["function"]["arguments"]) for call in message["tool_calls"]] == [
        {"city": "Oslo"},
        {"city": "Rome"},
    ]
    ids = [call["id"] for call in message["tool_calls"]]
    assert all(len(call_id) == 9 and call_id.isalnum() for call_id in ids)
    assert len(set(ids)) == 2
    assert choice["finish_reason"] == "tool_calls", choice["message"]["content"]


def test_content_is_null_where_there_are_calls_only(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(named("hermes"))
    choice = answer(llm, tools=TOOLS, grammar=forced(llm, f"<tool_call>\n{OSLO}\n</tool_call>"))
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls", choice["message"]["content"]


def test_the_models_own_ids_are_kept(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(named("kimi-k2"))
    text = (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Oslo"}<|tool_call_end|><|tool_calls_section_end|>'
    )
    [call] = answer(llm, tools=TOOLS, grammar=forced(llm, text))["message"]["tool_calls"]
    assert call["id"] == "functions.get_weather:0"


@pytest.mark.parametrize("options", [{}, {"tools": TOOLS, "tool_choice": "none"}])
def test_calls_are_text_where_no_tool_may_be_called(
    speaking: Callable[[Format], MaskProbeLlama], options: dict[str, Any]
) -> None:
    llm = speaking(named("hermes"))
    text = f"<tool_call>\n{OSLO}\n</tool_call>"
    choice = answer(llm, grammar=forced(llm, text), **options)
    assert choice["message"] == {"role": "assistant", "content": text}
    assert choice["finish_reason"] == "stop"


def test_control_tokens_of_no_format_do_not_show(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    text = "a<gh_stars>b<jupyter_code>c"
    assert answer(llm, grammar=forced(llm, text))["message"]["content"] == "abc", "no tools: no markers of calls"
    assert answer(llm, tools=TOOLS, grammar=forced(llm, text))["message"]["content"] == "ab<jupyter_code>c"


def test_unknown_tools_come_out_as_calls(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(named("hermes"))
    text = '<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>'
    assert functions_of(answer(llm, tools=TOOLS, grammar=forced(llm, text))) == [{"name": "nobody", "arguments": "{}"}]


def test_reasoning_may_stay_in_the_content(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    text = f"<issue_start>Hm.<issue_closed>Hello.<jupyter_code>{OSLO}<jupyter_output>"
    message = answer(llm, tools=TOOLS, grammar=forced(llm, text), reasoning_format="none")["message"]
    assert message["content"] == "Hm.Hello.", "the tags are control tokens, which do not show"
    assert len(message["tool_calls"]) == 1
    llm = speaking(named("hermes"))
    message = answer(llm, grammar=forced(llm, "<think>Hm.</think>Hello."), reasoning_format="none")["message"]
    assert message == {"role": "assistant", "content": "<think>Hm.</think>Hello."}


def test_a_call_cut_at_any_token_ends_with_length(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    text = f"Hi.<jupyter_code>{OSLO}<jupyter_output>"
    grammar = forced(llm, text)
    seen = set()
    for n in range(1, 60):
        [choice] = llm.create_chat_completion(HELLO, tools=TOOLS, grammar=grammar, max_tokens=n)["choices"]
        seen.add(choice["finish_reason"])
        assert choice["message"]["content"].startswith("Hi."[: 2 * n])
        if choice["finish_reason"] == "tool_calls":
            assert functions_of(choice) == [{"name": "get_weather", "arguments": '{"city": "Oslo"}'}]
            break
        assert choice["finish_reason"] == "length"
        assert not functions_of(choice)
    assert seen == {"length", "tool_calls"}


def test_a_call_cut_behind_a_whole_one_ends_with_length(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    first, second = (f"<jupyter_code>{call}<jupyter_output>" for call in (OSLO, ROME))
    options = {"tools": TOOLS, "grammar": forced(llm, first + second), "logprobs": True}
    tokens = [token["token"] for token in answer(llm, **options)["logprobs"]["content"]]
    end = next(n for n in range(len(tokens)) if "".join(tokens[:n]) == first)
    for more, reason in ((0, "tool_calls"), (5, "length")):
        choice = answer(llm, max_tokens=end + more, **options)
        assert choice["finish_reason"] == reason
        assert len(functions_of(choice)) == 1


def test_a_stop_string_in_a_call_ends_with_stop(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    choice = answer(llm, tools=TOOLS, grammar=forced(llm, f"<jupyter_code>{OSLO}<jupyter_output>"), stop="city")
    assert choice["finish_reason"] == "stop"
    assert not functions_of(choice)


def test_logprobs_are_of_all_tokens(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    text = f"<issue_start>The user greets.<issue_closed>Hello.<jupyter_code>{OSLO}<jupyter_output>"
    choice = answer(llm, tools=TOOLS, grammar=forced(llm, text), logprobs=True)
    assert "".join(token["token"] for token in choice["logprobs"]["content"]) == text


# --- what may be written ------------------------------------------------------------------------------

ONE_OF_A_SHAPE = ("hermes", "apertus", "mistral", "mistral-json", "qwen-xml", "deepseek-v3.2", "glm", "lfm2", "gemma-4")


def check_calls(choice: dict[str, Any], names: set[str]) -> None:
    """Holds the calls of a choice to the tools' schemas."""
    assert choice["finish_reason"] == "tool_calls", choice["message"]["content"]
    assert functions_of(choice)
    for function in functions_of(choice):
        assert function["name"] in names
        jsonschema.validate(json.loads(function["arguments"]), SCHEMAS[function["name"]])


@pytest.mark.parametrize("name", [*ONE_OF_A_SHAPE, "kimi-k3", "harmony", "llama-3", "llama-4"])
def test_a_tool_is_called_in_the_models_own_notation(name: str, speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(named(name))
    options = {"tools": TOOLS, "temperature": 1.0, "max_tokens": 250, "parallel_tool_calls": False}
    options["logit_bias"] = bias_of(llm)
    choice = answer(llm, tool_choice="required", seed=1, **options)
    check_calls(choice, {"get_weather", "switch_light"})
    assert len(functions_of(choice)) == 1
    assert not choice["message"]["content"]
    chosen = {"type": "function", "function": {"name": "switch_light"}}
    check_calls(answer(llm, tool_choice=chosen, seed=2, **options), {"switch_light"})


def test_allowed_tools_alone_are_called(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    for mode, bias in (("required", bias_of(llm)), ("auto", bias_of(llm, jupyter_code=100.0))):
        allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "switch_light"}}]}
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        for seed in range(3):
            options = {"temperature": 1.0, "seed": seed, "logit_bias": bias, "parallel_tool_calls": False}
            check_calls(answer(llm, tools=TOOLS, tool_choice=choice, **options), {"switch_light"})


@pytest.mark.parametrize("parallel", [False, True])
def test_a_call_that_the_model_begins_follows_its_schema(
    parallel: bool, speaking: Callable[[Format], MaskProbeLlama]
) -> None:
    llm = speaking(CONTROL)
    bias = bias_of(llm, jupyter_code=100.0)  # the model begins calls wherever it may
    options = {"tools": TOOLS, "logit_bias": bias, "temperature": 1.0, "parallel_tool_calls": parallel}
    for seed in range(3):
        choice = answer(llm, seed=seed, max_tokens=100, **options)
        if parallel:
            assert len(functions_of(choice)) > 1
            assert choice["finish_reason"] in ("length", "tool_calls")
        else:
            check_calls(choice, {"get_weather", "switch_light"})
            assert len(functions_of(choice)) == 1


def test_drafts_change_nothing_before_and_behind_a_trigger(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    have_text_before = []
    for seed in range(4):
        answers = []
        for speculate in (False, True):
            llm.reset()
            options = {
                "temperature": 1.0,
                "seed": seed,
                "logit_bias": bias_of(llm, jupyter_code=14.0),
                "max_tokens": 80,
            }
            parts = llm.create_chat_completion(
                HELLO, tools=TOOLS, logprobs=True, stream=True, speculate=speculate, **options
            )
            scored = [part["choices"][0]["logprobs"] for part in parts]
            answers.append([token["token"] for some in scored if some for token in some["content"]])
        assert answers[0] == answers[1]
        have_text_before.append("<jupyter_code>" in answers[0][1:] and answers[0][0] != "<jupyter_code>")
    assert any(have_text_before)


def test_an_answer_beside_tools_is_a_call_or_follows_its_schema(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(CONTROL)
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    options = {"tools": TOOLS, "response_format": {"type": "json_object", "schema": schema}, "temperature": 1.0}
    choice = answer(llm, logit_bias=bias_of(llm, jupyter_code=-100.0), **options)
    jsonschema.validate(json.loads(choice["message"]["content"]), schema)
    assert choice["finish_reason"] == "stop"
    choice = answer(llm, logit_bias=bias_of(llm, jupyter_code=100.0), parallel_tool_calls=False, **options)
    check_calls(choice, {"get_weather", "switch_light"})


def test_reasoning_comes_before_what_is_enforced(
    llm: MaskProbeLlama, speaking: Callable[[Format], MaskProbeLlama], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that thinks does so first; one that was told to in its prompt has to end that first."""
    form = Format("thinking", FORMATS["hermes"].calls, (Tags("<issue_start>", "<issue_closed>"),))
    template = llm.chat_formats.template()
    monkeypatch.setattr(llm.chat_formats, "template", lambda tools: f"{template}<issue_start>")
    options = {"tools": [LIGHT], "tool_choice": "required", "max_tokens": 80, "parallel_tool_calls": False}
    choice = answer(speaking(form), logit_bias=bias_of(llm, issue_start=100.0, issue_closed=99.0), **options)
    check_calls(choice, {"switch_light"})
    plain = Prompts.of_chat

    def opened(*args: Any, **arguments: Any) -> Any:
        prompt = plain(*args, **arguments)
        return prompt._replace(text=f"{prompt.text}<issue_start>")

    monkeypatch.setattr(Prompts, "of_chat", opened)
    for bias in (12.0, 100.0):
        choice = answer(speaking(form), logit_bias=bias_of(llm, issue_closed=bias), **options)
        check_calls(choice, {"switch_light"})
    assert "reasoning_content" not in choice["message"], "it was ended at once"


UNIQUE = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}


def test_only_strict_tools_are_refused_where_the_model_may_call(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    for form in (CONTROL, named("qwen-xml"), named("gemma-4")):
        llm = speaking(form)
        function = {"name": "f", "parameters": UNIQUE}
        llm.create_chat_completion(HELLO, tools=[{"type": "function", "function": function}], max_tokens=1)
        tools = [{"type": "function", "function": function | {"strict": True}}]
        with pytest.raises(ValueError, match=r"parameters of f: .*uniqueItems"):
            llm.create_chat_completion(HELLO, tools=tools, max_tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "sometimes"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "must name a function"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "mode"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}}, "no tools"),
        ({"tools": TOOLS, "tool_choice": "required", "grammar": 'root ::= "a"'}, "exclude"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "exclude"),
        ({"tools": TOOLS, "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"reasoning_format": "deepseek"}, "reasoning_format"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_bad_choices_are_refused(llm: MaskProbeLlama, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        llm.create_chat_completion(HELLO, max_tokens=1, **options)


def test_formats_by_name_write_hermes(model_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=1024, n_threads=1, chat_format="chatml") as llm:
        options = {"tools": TOOLS, "logit_bias": bias_of(llm), "temperature": 1.0, "parallel_tool_calls": False}
        check_calls(answer(llm, tool_choice="required", **options), {"get_weather", "switch_light"})
        text = f"<tool_call>{OSLO}</tool_call>"
        assert functions_of(answer(llm, grammar=forced(llm, text), tools=TOOLS))


def test_a_model_that_shows_no_way_to_call_does_so_in_json(
    speaking: Callable[[Format], MaskProbeLlama], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Prompts.of_chat

    def of_chat(*args: Any, **arguments: Any) -> Any:
        return plain(*args, **arguments)._replace(calls_as_hermes=False)

    monkeypatch.setattr(Prompts, "of_chat", of_chat)
    llm = speaking(named("plain"))
    assert answer(llm, tools=TOOLS, grammar=forced(llm, OSLO))["message"]["content"] == OSLO
    options = {"tools": TOOLS, "logit_bias": bias_of(llm), "temperature": 1.0, "logprobs": True}
    choice = answer(llm, tool_choice="required", **options)
    check_calls(choice, {"get_weather", "switch_light"})
    text = "".join(token["token"] for token in choice["logprobs"]["content"])
    assert json.loads(text).keys() == {"name", "arguments"}


def test_handlers_refuse_what_they_do_not_know(model_path: Callable[[str], Path]) -> None:
    path = model_path("Q4_0")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    with MaskProbeLlama(path, n_ctx=512, n_threads=1, chat_format="chatml-function-calling") as llm:
        for options in ({"parallel_tool_calls": False}, {"reasoning_format": "none"}):
            with pytest.raises(ValueError, match="not supported with this chat_format"):
                llm.create_chat_completion(HELLO, tools=tools, max_tokens=1, **options)


def test_the_older_names_work(speaking: Callable[[Format], MaskProbeLlama]) -> None:
    llm = speaking(named("hermes"))
    options = {"functions": [LIGHT["function"], WEATHER["function"]], "function_call": {"name": "switch_light"}}
    choice = answer(llm, parallel_tool_calls=False, logit_bias=bias_of(llm), **options)
    check_calls(choice, {"switch_light"})
    assert choice["message"]["function_call"] == functions_of(choice)[0]
