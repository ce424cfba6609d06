"""Anthropic's Messages API, by the official client: blocks in, blocks and events out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from server_fixtures import DEADLINE, HELLO, NAME, fetch, load_for_server, serving
from stand_ins import USAGE, call, content, reasoning, saying

from maskprobe import DecodeError, MaskProbeLlama
from maskprobe.server.messages.answer import MessageForm
from maskprobe.server.messages.blocks import chat_choice

PATH = "/v1/messages"
TOOL = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}},
        "required": ["city"],
    },
}
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
EVERYTHING = [*reasoning("I ", "think."), *content("Let me ", "see."), *call(0, "get_weather", '{"city"', ': "Oslo"}')]
EVERYTHING += call(1, "get_time")
COLD = {"temperature": 0}  # the client's own methods no longer have it
BODY: dict[str, Any] = {"max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=DEADLINE) as client:
        yield client


def ask(client: anthropic.Anthropic, **options: Any) -> Any:
    return client.messages.create(
        **{"model": NAME, "messages": HELLO, "extra_body": COLD, "max_tokens": 12, "stream": False} | options
    )


def events_of(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, each checked against the client's types."""
    reply = fetch(url, PATH, BODY | {"stream": True} | body)
    assert reply.status == 200, reply.body
    events = []
    for text in reply.body.decode().strip().split("\n\n"):
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] not in ("ping", "error"):
            EVENTS.validate_python(event, strict=True)
        events.append(event)
    return events


def error_of(url: str, body: Any, **headers: str) -> tuple[int, dict[str, str]]:
    reply = fetch(url, PATH, body, **headers)
    told = reply.json()
    assert (told.keys(), told["type"], told["error"].keys()) == ({"type", "error"}, "error", {"type", "message"})
    return reply.status, told["error"]


# --- generations of the model ---------------------------------------------------------------------------


def test_text_is_what_chats_answer(client: anthropic.Anthropic, served: MaskProbeLlama) -> None:
    own = served.create_chat_completion(HELLO, temperature=0.0, max_tokens=12)
    message = ask(client)
    (block,) = message.content
    assert (block.type, block.text) == ("text", own["choices"][0]["message"]["content"])
    assert (message.stop_reason, message.role, message.model) == ("max_tokens", "assistant", NAME)
    usage = message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == own["usage"]["prompt_tokens"]
    assert usage.cache_read_input_tokens > 0
    assert usage.output_tokens == 12


def test_types_hold(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, EVERYTHING, "tool_calls"):
        Message.model_validate(fetch(url, PATH, BODY).json(), strict=True)


def test_stream_is_the_same_message(client: anthropic.Anthropic) -> None:
    whole = ask(client)
    with client.messages.stream(model=NAME, messages=HELLO, max_tokens=12, extra_body=COLD) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == whole.content[0].text == message.content[0].text
    assert message.stop_reason == whole.stop_reason
    assert message.usage == whole.usage


def test_a_named_tool_is_called(client: anthropic.Anthropic) -> None:
    choice = {"type": "tool", "name": "get_weather"}
    for message in (
        ask(client, tools=[TOOL], tool_choice=choice, max_tokens=48),
        _streamed(client, tools=[TOOL], tool_choice=choice, max_tokens=48),
    ):
        (block,) = message.content
        assert (block.type, block.name, set(block.input)) == ("tool_use", "get_weather", {"city"})
        assert message.stop_reason == "tool_use"


def _streamed(client: anthropic.Anthropic, **options: Any) -> Any:
    with client.messages.stream(**{"model": NAME, "messages": HELLO, "extra_body": COLD} | options) as stream:
        return stream.get_final_message()


def test_stop_sequences(client: anthropic.Anthropic) -> None:
    text = ask(client).content[0].text
    word = text.split()[2]
    options: dict[str, Any] = {"stop_sequences": ["zebra", word], "max_tokens": 12}
    for message in (ask(client, **options), _streamed(client, **options)):
        assert message.content[0].text == text[: text.index(word)]
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"messages": HELLO, "system": "Be brief."}
    counted = client.messages.count_tokens(model=NAME, **options).input_tokens
    usage = ask(client, **options, max_tokens=1).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_tools_count_too(url: str, client: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {
        "messages": HELLO,
        "tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}],
    }
    counted = fetch(url, f"{PATH}/count_tokens", options)
    usage = ask(client, **options, max_tokens=1).usage
    assert counted.json() == {"input_tokens": usage.input_tokens + usage.cache_read_input_tokens}
    assert counted.headers["x-skipped-tools"] == "web_search_20250305"
    assert fetch(url, f"{PATH}/count_tokens", options | {"model": "claude"}).status == 404


def test_tools_that_must_not_be_called_do_not_count(client: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"messages": HELLO, "tools": [TOOL], "tool_choice": {"type": "none"}}
    counted = client.messages.count_tokens(model=NAME, **options).input_tokens
    usage = ask(client, **options, max_tokens=1).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert counted == client.messages.count_tokens(model=NAME, messages=HELLO).input_tokens


# --- what the model says, forced ------------------------------------------------------------------------


def test_blocks_of_an_answer(client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, EVERYTHING, "tool_calls"):
        message, streamed = ask(client), _streamed(client, max_tokens=9)
    thought, text, first, second = message.content
    assert thought.thinking == "I think."
    assert text.text == "Let me see."
    assert (first.id, first.name, first.input) == ("call_0", "get_weather", {"city": "Oslo"})
    assert (second.id, second.name, second.input) == ("call_1", "get_time", {})
    assert message.stop_reason == "tool_use"
    assert message.usage.model_dump(exclude_none=True) == {
        "input_tokens": 4,
        "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
    }
    assert [block.model_dump(exclude_none=True) for block in streamed.content] == [
        block.model_dump(exclude_none=True) for block in message.content
    ]
    assert streamed.usage == message.usage


def test_events_of_an_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, EVERYTHING, "tool_calls"):
        events = events_of(url, {})
    deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas == [
        *["thinking_delta", "thinking_delta", "signature_delta", "text_delta", "text_delta"],
        *["input_json_delta", "input_json_delta"],
    ]
    names = [event["type"] for event in events if event["type"] != "content_block_delta"]
    assert names == [
        *["message_start", "ping"],
        *4 * ["content_block_start", "content_block_stop"],
        *["message_delta", "message_stop"],
    ]
    assert [event["index"] for event in events if event["type"] == "content_block_start"] == [0, 1, 2, 3]
    assert events[-2]["timings"]["passes"] == 4


def test_a_call_that_was_cut_has_no_input(client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, call(0, "f", '{"a": '), "length"):
        message = ask(client)
    assert (message.content[0].input, message.stop_reason) == ({}, "max_tokens")
    with saying(monkeypatch, call(0, "f", "[1]"), "tool_calls"):
        assert ask(client).content[0].input == {}, "arguments are an object"


def test_a_call_ends_a_message_even_where_a_stop_string_followed() -> None:
    choice = {"message": {"content": "x"}, "finish_reason": "tool_calls", "stop_reason": "END"}
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 0}}
    message = MessageForm(NAME, ["END"]).whole([{"choices": [choice], "usage": usage}])
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)


def test_a_failure_in_mid_stream(url: str, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, content("Half"), fails=DecodeError("llama_decode failed")):
        *_, last = events_of(url, {})
        with pytest.raises(anthropic.APIStatusError, match="llama_decode"):
            _streamed(client, max_tokens=9)
        assert error_of(url, BODY)[0] == 500
    assert last == {"type": "error", "error": {"type": "api_error", "message": "the model failed: llama_decode failed"}}


# --- what the model is asked ----------------------------------------------------------------------------


def test_blocks_become_messages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Åre"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Oslo?", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me see."},
                use,
                use | {"id": "t2"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "t3", "is_error": True},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    with saying(monkeypatch, content("Sunny.")) as asked:
        assert fetch(url, PATH, {"max_tokens": 9, "messages": messages, "system": system}).status == 200
    function = {"name": "get_weather", "arguments": '{"city": "Åre"}'}
    calls = [{"id": name, "type": "function", "function": function} for name in ("t1", "t2")]
    assert asked[0]["messages"] == [
        {"role": "system", "content": "Be brief.\nBe kind."},
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "t2", "content": "rain"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": "And?"},
    ]


def test_blocks_of_one_kind_are_joined(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "get_time", "input": {}}
    thoughts = [{"type": "thinking", "thinking": text, "signature": ""} for text in ("Hm.", "Oslo.")]
    texts = [{"type": "text", "text": text} for text in ("Let me", "see.")]
    messages = [
        {"role": "user", "content": []},
        {"role": "assistant", "content": [*thoughts, *texts]},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": texts},
        {"role": "assistant", "content": [use]},
    ]
    with saying(monkeypatch, content("Hi")) as asked:
        assert fetch(url, PATH, BODY | {"messages": messages}).status == 200
    function = {"name": "get_time", "arguments": "{}"}
    assert asked[0]["messages"] == [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "Let me\nsee.", "reasoning_content": "Hm.\nOslo."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Let me\nsee."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "t1", "type": "function", "function": function}]},
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "adaptive"}}, None),
        (
            {"thinking": {"type": "enabled"}, "chat_template_kwargs": {"tone": "dry"}},
            {"enable_thinking": True, "tone": "dry"},
        ),
        (
            {"thinking": {"type": "enabled"}, "chat_template_kwargs": {"enable_thinking": False}},
            {"enable_thinking": False},
        ),
    ],
    ids=str,
)
def test_thinking_is_the_templates(
    url: str, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    with saying(monkeypatch, content("Hi")) as asked:
        assert fetch(url, PATH, BODY | body).status == 200
    assert asked[0].get("chat_template_kwargs") == expected


def test_what_the_answer_must_look_like_reaches_the_model(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "object", "properties": {"dark": {"type": "boolean"}}}
    config = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    with saying(monkeypatch, content("{}")) as asked:
        assert fetch(url, PATH, BODY | {"output_config": config}).status == 200
    assert asked[0]["reasoning_effort"] == "low"
    assert asked[0]["response_format"] == {"type": "json_schema", "json_schema": {"schema": schema}}


def test_any_tool_must_be_called() -> None:
    assert chat_choice({"type": "any"}) == "required"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
    ],
    ids=str,
)
def test_tools_and_sampling_reach_the_model(
    url: str, monkeypatch: pytest.MonkeyPatch, choice: dict[str, Any], expected: Any
) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}, TOOL, TOOL | {"type": "custom", "name": "again"}]
    body = BODY | {"tools": tools, "tool_choice": choice}
    body |= {"top_k": 3, "top_p": 0.5, "stop_sequences": ["x"], "metadata": {"user_id": "me"}}
    with saying(monkeypatch, content("Hi")) as asked:
        reply = fetch(url, PATH, body, anthropic_version="2023-06-01", anthropic_beta="a,b")
    function = {"name": "get_weather", "description": "Weather of a city.", "parameters": TOOL["input_schema"]}
    functions = [function, function | {"name": "again"}]
    assert asked[0]["tools"] == [{"type": "function", "function": function} for function in functions]
    assert asked[0]["tool_choice"] == expected
    assert asked[0].get("parallel_tool_calls") == (False if "disable_parallel_tool_use" in choice else None)
    assert (asked[0]["top_k"], asked[0]["top_p"], asked[0]["stop"], asked[0]["max_tokens"]) == (3, 0.5, ["x"], 8)
    assert reply.headers["x-skipped-tools"] == "web_search_20250305"


@pytest.mark.parametrize(
    ("words", "body"),
    [
        ("max_tokens", {"max_tokens": None}),
        ("max_tokens", {"max_tokens": 0}),
        ("messages", {"messages": []}),
        ("messages", {"messages": ["hello"]}),
        ("messages[0].role", {"messages": [{"role": "tool", "content": "a"}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": ["a"]}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        ("messages[0].content[0].text", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "assistant", "content": [{"type": "tool_result"}]}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "system", "content": [{"type": "tool_result"}]}]}),
        ("tool_use_id", {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}),
        ("system[0].type", {"system": [{"type": "image"}]}),
        ("temperature", {"temperature": 1.5}),
        ("tools[0].name", {"tools": [{"input_schema": {}}]}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "some"}}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": {}}}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "nobody"}}),
        ("stop_sequences", {"stop_sequences": [1]}),
        ("output_config.format", {"output_config": {"format": {"type": "yaml"}}}),
        ("thinking.type", {"thinking": {"type": "perhaps"}}),
        ("mcp_servers", {"mcp_servers": []}),
        ("n_ctx=1024", {"messages": [{"role": "user", "content": "word " * 2000}]}),
    ],
    ids=str,
)
def test_bad_fields(url: str, words: str, body: dict[str, Any]) -> None:
    for stream in (False, True):
        status, error = error_of(url, BODY | body | {"stream": stream})
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert words in error["message"]


def test_errors_of_other_kinds(url: str) -> None:
    assert error_of(url, BODY | {"model": "claude"})[1]["type"] == "not_found_error"
    assert error_of(url, BODY, Content_Type="text/plain")[0] == 415
    assert error_of(url, b"{")[1]["type"] == "invalid_request_error"
    assert error_of(url, b'"' + b"a" * (5 * 2**20) + b'"')[1]["type"] == "request_too_large"
    assert fetch(url, f"{PATH}/count_tokens", {"messages": []}).json()["type"] == "error"


def test_both_kinds_of_keys_are_accepted(model_path: Any) -> None:
    with load_for_server(model_path("Q4_0")) as llm, serving(llm, api_key="sesame") as url:
        for headers, status in (
            ({"x_api_key": "sesame"}, 200),
            ({"Authorization": "Bearer sesame"}, 200),
            ({"x_api_key": "wrong", "Authorization": "Bearer sesame"}, 200),
            ({"x_api_key": "wrong"}, 401),
            ({"x_api_key": "Bearer sesame"}, 401),
            ({}, 401),
        ):
            assert fetch(url, PATH, BODY | {"max_tokens": 1}, **headers).status == status
        assert error_of(url, BODY)[1]["type"] == "authentication_error"
