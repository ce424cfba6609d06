"""OpenAI's Responses API, by the official client: items in, items and events out, conversations that are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response as OpenAiResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from server_fixtures import HELLO, NAME, fetch, openai_client
from stand_ins import call, content, reasoning, saying

from maskprobe import DecodeError, MaskProbeLlama
from maskprobe.server.errors import ApiError
from maskprobe.server.responses.answer import ResponseForm, new_response
from maskprobe.server.responses.body import ResponsesRequest
from maskprobe.server.responses.items import choice_of, messages_of, tools_of
from maskprobe.server.responses.store import ResponseStore

PATH = "/v1/responses"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]},
    "strict": True,
}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
EVERYTHING = [*reasoning("I ", "think."), *content("Let me ", "see."), *call(0, "get_weather", '{"city"', ': "Oslo"}')]
EVERYTHING += call(1, "get_time", "{}")


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai_client(url) as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.responses.create(
        **{"model": NAME, "input": HELLO[0]["content"], "temperature": 0, "max_output_tokens": 12} | options
    )


def events_of(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, each checked against the client's types."""
    reply = fetch(url, PATH, {"input": "Hi", "stream": True} | body)
    assert reply.status == 200, reply.body
    events = []
    for text in reply.body.decode().strip().split("\n\n"):
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENTS.validate_python(event, strict=True)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


# --- generations of the model ---------------------------------------------------------------------------


def test_text_is_what_chats_answer(client: openai.OpenAI, served: MaskProbeLlama) -> None:
    own = served.create_chat_completion(HELLO, temperature=0.0, max_tokens=12)
    response = ask(client)
    assert response.output_text == own["choices"][0]["message"]["content"]
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.usage.output_tokens == 12
    assert response.usage.input_tokens == own["usage"]["prompt_tokens"]
    assert response.model == NAME


def test_types_hold(url: str) -> None:
    body = {"input": "Hi", "max_output_tokens": 4, "instructions": "Be brief.", "tools": [TOOL], "metadata": {"a": "b"}}
    body |= {"tool_choice": "auto", "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}}
    reply = fetch(url, PATH, body)
    response = OpenAiResponse.model_validate(reply.json(), strict=True)
    assert response.metadata == {"a": "b"}
    assert response.usage is not None


def test_stream_is_the_same_text(client: openai.OpenAI) -> None:
    events = list(ask(client, stream=True))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == ask(client).output_text == events[-1].response.output_text
    assert events[-1].type == "response.incomplete"


def test_json_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"dark": {"type": "boolean"}}, "required": ["dark"]}
    text = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    response = ask(client, text=text, max_output_tokens=200)
    assert set(json.loads(response.output_text, strict=False)) == {"dark"}
    assert response.status == "completed"


def test_a_named_tool_is_called(client: openai.OpenAI) -> None:
    choice = {"type": "function", "name": "get_weather"}
    response = ask(client, tools=[TOOL], tool_choice=choice, max_output_tokens=48)
    (item,) = response.output
    assert (item.type, item.name, item.status) == ("function_call", "get_weather", "completed")
    assert set(json.loads(item.arguments, strict=False)) == {"city"}


def test_a_cached_prompt_is_in_the_usage(client: openai.OpenAI) -> None:
    ask(client)
    assert ask(client).usage.input_tokens_details.cached_tokens > 0


# --- what the model says, forced ------------------------------------------------------------------------


def test_items_of_an_answer(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, EVERYTHING, "tool_calls"):
        response = ask(client)
        thought, message, first, second = response.output
        streamed = list(ask(client, stream=True))[-1].response
    assert thought.content[0].text == "I think."
    assert message.content[0].text == "Let me see."
    assert (first.call_id, first.name, first.arguments) == ("call_0", "get_weather", '{"city": "Oslo"}')
    assert (second.call_id, second.name, second.arguments) == ("call_1", "get_time", "{}")
    assert response.status == "completed"

    def bare(items: Any) -> list[dict[str, Any]]:
        return [item.model_dump(exclude={"id"}) for item in items]

    assert bare(streamed.output) == bare(response.output)
    assert streamed.usage == response.usage


def test_events_of_an_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, EVERYTHING, "tool_calls"):
        events = events_of(url, {})
    names = [event["type"].removeprefix("response.") for event in events]
    item = ["output_item.added"]
    part, done = ["content_part.added"], ["content_part.done", "output_item.done"]
    assert names == [
        *["created", "in_progress"],
        *item, *part, *2 * ["reasoning_text.delta"], "reasoning_text.done", *done,
        *item, *part, *2 * ["output_text.delta"], "output_text.done", *done,
        *item, *2 * ["function_call_arguments.delta"], "function_call_arguments.done", "output_item.done",
        *item, "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.added"] == [0, 1, 2, 3]
    added = {event["item"]["id"] for event in events if event["type"] == "response.output_item.added"}
    assert {event["item_id"] for event in events if "item_id" in event} == added
    assert events[2]["item"]["content"] == []
    assert {event["type"] for event in events if "logprobs" in event} == {
        "response.output_text.delta",
        "response.output_text.done",
    }


def test_a_call_that_was_cut_is_incomplete(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, call(0, "f", '{"a": '), "length"):
        *_, last = events_of(url, {})
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_an_empty_answer_is_an_empty_message(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, []):
        *_, last = events_of(url, {})
    assert last["response"]["output"][0]["content"][0]["text"] == ""


def test_a_failure_in_mid_stream(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, content("Half"), fails=DecodeError("llama_decode failed")):
        *_, last = events_of(url, {})
        assert fetch(url, PATH, {"input": "Hi"}).status == 500
    assert last["type"] == "response.failed"
    error = {"code": "server_error", "message": "the model failed: llama_decode failed"}
    assert last["response"]["error"] == error
    assert fetch(url, f"{PATH}/{last['response']['id']}").status == 404


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid_prompt"), (429, "rate_limit_exceeded"), (500, "server_error")]
)
def test_a_failure_before_all_events(status: int, code: str) -> None:
    """The client hears of a response first; what has failed is not kept."""
    kept: list[Any] = []
    form = ResponseForm(new_response(ResponsesRequest(input="Hi"), NAME), kept.append)
    lines = form.failed(ApiError(status, "no")).decode().splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert events[-1]["response"]["error"] == {"code": code, "message": "no"}
    assert kept == []


# --- what the model is asked ----------------------------------------------------------------------------

CALLED = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Oslo"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
TURN = {
    "role": "assistant",
    "content": "Let me see.",
    "reasoning_content": "Hm.",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
        {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
    ],
}


def test_items_become_messages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "input_text", "text": "Oslo?"}]},
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "message",
            "id": "msg",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        CALLED,
        CALLED | {"call_id": "c2"},
        RESULT,
        RESULT | {"call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
    ]
    with saying(monkeypatch, content("Sunny.")) as asked:
        assert fetch(url, PATH, {"input": items, "instructions": "Be brief."}).status == 200
    messages = [{key: value for key, value in message.items() if value is not None} for message in asked[0]["messages"]]
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Oslo?"},
        TURN,
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
    ]


def test_what_the_model_said_is_a_message_for_each_turn() -> None:
    """One has a thought, a text and calls, in this order; what does not fit behind them begins the next."""
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    parts = [{"type": "output_text", "text": text} for text in ("Well.", "Yes.")]
    summary = [{"type": "summary_text", "text": text} for text in ("Hm.", "Oslo.")]
    items = [
        *(refused, {"role": "assistant", "content": parts}),
        *({"type": "reasoning", "summary": summary}, CALLED, {"role": "assistant", "content": "Done."}),
        *({"type": "reasoning", "summary": [], "content": summary[:1]}, {"type": "reasoning", "summary": summary[1:]}),
    ]
    call = {"id": "c1", "type": "function", "function": {key: CALLED[key] for key in ("name", "arguments")}}
    assert messages_of(items) == [
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "Well.\nYes."},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.\nOslo.", "tool_calls": [call]},
        {"role": "assistant", "content": "Done."},
        {"role": "assistant", "content": None, "reasoning_content": "Hm."},
        {"role": "assistant", "content": None, "reasoning_content": "Oslo."},
    ]


def test_tools_and_choices_among_them() -> None:
    function = {"name": "get_weather", "parameters": {}}
    assert tools_of([{"type": "function", "description": None, **function}, {"type": "custom", "name": "x"}]) == (
        [{"type": "function", "function": function}],
        ["custom"],
    )
    named, tool = {"type": "function", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}
    for given, mode in (({"mode": "required"}, "required"), ({}, "auto")):
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [tool]}}
        assert choice_of({"type": "allowed_tools", "tools": [named]} | given) == allowed


def test_a_response_says_what_was_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    echoed = {"instructions": "Be brief.", "temperature": 0.5, "top_p": 0.25, "max_output_tokens": 9, "store": False}
    echoed |= {"parallel_tool_calls": False, "tool_choice": "auto", "text": {"format": {"type": "json_object"}}}
    with saying(monkeypatch, content("{}")) as asked:
        body = {"input": "Hi", "tools": [TOOL], "reasoning": {"effort": "low"}} | echoed
        response = fetch(url, PATH, body).json()
    assert {key: response[key] for key in echoed} == echoed
    assert response["reasoning"]["effort"] == "low"
    assert response["completed_at"] >= response["created_at"]
    assert response["timings"]["passes"] == 4
    wanted = {"parallel_tool_calls": False, "top_p": 0.25, "reasoning_effort": "low"}
    wanted["response_format"] = {"type": "json_object"}
    assert {key: asked[0].get(key) for key in wanted} == wanted


def test_tools_and_sampling_reach_the_model(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {
        "input": "Hi",
        "tools": [{"type": "web_search"}, TOOL, {"type": "x\r\ny"}],
        "top_k": 3,
        "seed": 5,
        "mirostat": 2,
    }
    body |= {"tool_choice": {"type": "function", "name": "get_weather"}, "max_output_tokens": 9, "user": "me"}
    with saying(monkeypatch, content("Hi")) as asked:
        reply = fetch(url, PATH, body)
    function = {key: TOOL[key] for key in ("name", "description", "parameters", "strict")}
    assert asked[0]["tools"] == [{"type": "function", "function": function}]
    assert asked[0]["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert (asked[0]["top_k"], asked[0]["seed"], asked[0]["max_tokens"]) == (3, 5, 9)
    assert asked[0]["mirostat_mode"] == 2, "llama-server's other name"
    assert reply.headers["x-skipped-tools"] == "other, web_search"
    assert [tool["name"] for tool in reply.json()["tools"]] == ["get_weather"]


def test_a_conversation_goes_on(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, [*content("Let me see."), *call(0, "get_weather", "{}")], "tool_calls"):
        first = ask(client, instructions="Be brief.", tools=[TOOL])
    with saying(monkeypatch, content("Sunny.")) as asked:
        second = ask(client, previous_response_id=first.id, input=[RESULT | {"call_id": "call_0"}])
        ask(client, previous_response_id=second.id, input="Sure?", stream=False)
    roles = [[message["role"] for message in arguments["messages"]] for arguments in asked]
    assert roles == [["user", "assistant", "tool"], ["user", "assistant", "tool", "assistant", "user"]]
    assert asked[0]["messages"][1]["tool_calls"][0]["id"] == "call_0"
    assert second.previous_response_id == first.id
    bad = {"previous_response_id": first.id, "input": [RESULT, {"type": "item_reference"}]}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **bad)
    assert refused.value.param == "input[1].type", "of this request's own items"


def test_what_is_kept(url: str, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with saying(monkeypatch, content("Hi")):
        kept, unkept = ask(client), ask(client, store=False)
        streamed = list(ask(client, stream=True))[-1].response
    assert client.responses.retrieve(kept.id).output_text == "Hi"
    assert client.responses.retrieve(streamed.id) == streamed
    assert fetch(url, f"{PATH}/{kept.id}", method="HEAD").status == 200
    gone = fetch(url, f"{PATH}/{kept.id}", method="DELETE").json()
    assert gone == {"id": kept.id, "object": "response", "deleted": True}
    for name in (kept.id, unkept.id):
        for call_for in (
            lambda name=name: client.responses.retrieve(name),
            lambda name=name: client.responses.delete(name),
            lambda name=name: ask(client, previous_response_id=name),
        ):
            with pytest.raises(openai.NotFoundError, match="no response"):
                call_for()


def test_the_store_is_bounded() -> None:
    store = ResponseStore(most=2, most_characters=1000)
    for name in "abc":
        store.put({"id": name}, [])
        store.get("a")
    assert [store.get(name) is not None for name in "abc"] == [True, False, True]
    store.put({"id": "d"}, [{"text": "x" * 960}])
    assert [store.get(name) is not None for name in "acd"] == [False, False, True]
    store.put({"id": "e"}, [{"text": "x" * 1000}])
    assert store.get("e") is None
    for name in "fg":  # what was deleted takes no room
        store.put({"id": name}, [{"text": "x" * 600}])
        assert store.delete(name)
    store.put({"id": "h"}, [{"text": "x" * 600}])
    assert store.get("h") is not None


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("input", {}),
        ("input", {"input": []}),
        ("input", {"input": 3}),
        ("input", {"input": ["hello"]}),
        ("input[0].role", {"input": [{"content": "a"}]}),
        ("input[0].content", {"input": [{"role": "user"}]}),
        ("input[0].content[0]", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": ""}]}]}),
        ("input[0].content[0].text", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
        ("input[0].type", {"input": [{"type": "item_reference", "id": "a"}]}),
        ("input[0].call_id", {"input": [RESULT | {"call_id": None}]}),
        ("input[0].arguments", {"input": [CALLED | {"arguments": {}}]}),
        ("tools", {"input": "a", "tools": [{"type": "function", "parameters": {}}]}),
        ("tool_choice", {"input": "a", "tools": [TOOL], "tool_choice": {"type": "web_search"}}),
        ("tool_choice", {"input": "a", "tools": [TOOL], "tool_choice": {"type": "function", "name": "nobody"}}),
        ("tool_choice", {"input": "a", "tools": [TOOL], "tool_choice": "sometimes"}),
        ("text.format", {"input": "a", "text": {"format": {"type": "yaml"}}}),
        ("text.format", {"input": "a", "text": {"format": {"type": "json_schema", "schema": {"not": {}}}}}),
        ("max_output_tokens", {"input": "a", "max_output_tokens": 0}),
        ("temperature", {"input": "a", "temperature": 3}),
        ("background", {"input": "a", "background": True}),
        ("truncation", {"input": "a", "truncation": "auto"}),
        ("conversation", {"input": "a", "conversation": "conv_1"}),
        ("messages", {"input": "a", "messages": HELLO}),
        ("n", {"input": "a", "n": 2}),
        ("previous_response_id", {"input": "a", "previous_response_id": "resp_1"}),
        ("input", {"input": "word " * 2000}),
        ("model", {"input": "a", "model": "gpt-5"}),
        (None, {"input": "a", "tools": [TOOL | {"parameters": {"maximum": float("inf")}}]}),
    ],
    ids=str,
)
def test_bad_fields(url: str, param: str | None, body: dict[str, Any]) -> None:
    for stream in (False, True):
        reply = fetch(url, PATH, body | {"stream": stream})
        assert reply.status == (404 if param in ("model", "previous_response_id") else 400)
        assert reply.error()["param"] == param
