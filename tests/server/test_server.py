"""The official openai client gets from the server what the package gives in process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from server_fixtures import HELLO, NAME, connect, fetch, openai_client, send

from maskprobe import DecodeError, MaskProbeLlama
from maskprobe.chat.formats import ChatFormats
from maskprobe.core.session import Pass, Session
from maskprobe.server.requests import IGNORED, NEUTRAL

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        },
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
ONE_CALL = {"parallel_tool_calls": False, "max_tokens": 160, "extra_body": {"cache_prompt": False}}
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "dark": {"type": "boolean"}},
    "required": ["colour", "dark"],
}


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai_client(url) as client:
        yield client


def json_of(text: str) -> Any:
    """llama-cpp-python's JSON grammar allows line breaks in strings."""
    return json.loads(text, strict=False)


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(
        **{"model": NAME, "messages": HELLO, "temperature": 0, "max_tokens": 18} | options
    )


# --- chats ---------------------------------------------------------------------------------------------


def test_chat_is_what_the_package_answers(client: openai.OpenAI, served: MaskProbeLlama) -> None:
    answer = ask(client)
    own = served.create_chat_completion(HELLO, temperature=0.0, max_tokens=18)
    assert answer.choices[0].message.content == own["choices"][0]["message"]["content"]
    assert answer.choices[0].finish_reason == own["choices"][0]["finish_reason"] == "length"
    assert answer.usage.model_dump(include=own["usage"].keys()) == own["usage"]
    assert (answer.object, answer.model) == ("chat.completion", NAME)
    assert answer.timings["predicted_n"] == 18


def test_stream_is_the_same_text_with_role_first_and_figures_last(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ask(client).choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].timings["predicted_n"] == 18
    assert chunks[-1].timings["draft_n_accepted"] > 0
    assert len(chunks) > 10
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_if_asked(client: openai.OpenAI) -> None:
    ask(client)  # from now on the prompt is cached
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == 18
    assert last.usage == ask(client).usage
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_stream_ends_with_done(url: str) -> None:
    body = {"messages": HELLO, "max_tokens": 2, "stream": True}
    reply = fetch(url, "/v1/chat/completions", body)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    events = reply.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk" for event in events[:-2])
    assert "usage" not in events[-3]
    asked = fetch(url, "/v1/chat/completions", body | {"stream_options": {"include_usage": True}}).body.decode()
    *chunks, last, _, _ = asked.split("\n\n")
    assert all(json.loads(chunk.removeprefix("data: "))["usage"] is None for chunk in chunks)
    assert json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"] == 2


def test_default_temperature_is_llama_servers(client: openai.OpenAI, served: MaskProbeLlama) -> None:
    cold = served.create_chat_completion(HELLO, max_tokens=32, temperature=0.0)["choices"][0]["message"]["content"]
    drawn = set()
    for seed in range(3, 8):
        answer = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=32, seed=seed)
        own = served.create_chat_completion(HELLO, max_tokens=32, seed=seed, temperature=0.8)
        assert answer.choices[0].message.content == own["choices"][0]["message"]["content"]
        drawn.add(answer.choices[0].message.content)
    assert drawn - {cold}, "the seeds show nothing"


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.5, "top_p": 0.7, "seed": 5},
        {"temperature": 1.0, "seed": 5, "presence_penalty": 1.5, "frequency_penalty": 1.0},
        {"temperature": 0.0, "logit_bias": {"12397": -100.0}},  # " Monday"
        {"temperature": 0.0, "stop": ["Tuesday", "Wed"]},
        {"temperature": 0.0, "stop": "Tuesday"},
        {"temperature": 1.2, "seed": 5, "extra_body": {"top_k": 3}},
        {"temperature": 1.2, "seed": 5, "extra_body": {"min_p": 0.4}},
        {"temperature": 1.2, "seed": 5, "extra_body": {"typical_p": 0.5}},
        {"temperature": 0.0, "extra_body": {"repeat_penalty": 1.5}},
        {"temperature": 1.0, "seed": 5, "extra_body": {"mirostat_mode": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.3}},
        {"temperature": 0.0, "extra_body": {"grammar": 'root ::= "yes" | "no"'}},
    ],
    ids=str,
)
def test_sampling_options_reach_the_model(
    client: openai.OpenAI, served: MaskProbeLlama, options: dict[str, Any]
) -> None:
    extra = options.get("extra_body", {})
    arguments = {name: value for name, value in options.items() if name != "extra_body"} | extra
    without = {name: arguments[name] for name in ("temperature", "seed") if name in arguments}
    own = served.create_chat_completion(HELLO, max_tokens=18, **arguments)
    assert ask(client, **options).choices[0].message.content == own["choices"][0]["message"]["content"]
    if "top_p" not in options:
        plain = served.create_chat_completion(HELLO, max_tokens=18, **without)
        assert plain["choices"][0]["message"]["content"] != own["choices"][0]["message"]["content"]


def test_mirostat_has_llama_servers_name_too(client: openai.OpenAI) -> None:
    options = {"temperature": 1.0, "seed": 5}
    texts = [
        ask(client, **options, extra_body=extra).choices[0].message.content
        for extra in ({"mirostat": 2, "mirostat_tau": 3.0}, {"mirostat_mode": 2, "mirostat_tau": 3.0}, {})
    ]
    assert texts[0] == texts[1] != texts[2]


def test_speculate_false_is_the_same_text_without_drafts(client: openai.OpenAI) -> None:
    plain = ask(client, extra_body={"speculate": False})
    assert plain.choices[0].message.content == ask(client).choices[0].message.content
    assert "draft_n" not in plain.timings
    assert plain.timings["acceptance_length"] == 1.0


def test_drafted_tokens_are_told_if_asked(client: openai.OpenAI) -> None:
    answer = ask(client, extra_body={"return_drafted": True})
    assert sum(answer.choices[0].drafted) == answer.timings["draft_n_accepted"] > 0
    assert not hasattr(ask(client).choices[0], "drafted")


def test_cache_prompt_false_decodes_the_prompt_again(client: openai.OpenAI) -> None:
    ask(client)
    assert ask(client).timings["cache_n"] > 0
    assert ask(client, extra_body={"cache_prompt": False}).timings["cache_n"] == 0


def test_max_completion_tokens_is_max_tokens(client: openai.OpenAI) -> None:
    assert ask(client, max_completion_tokens=3, max_tokens=openai.omit).usage.completion_tokens == 3


def test_null_and_ignored_fields_change_nothing(url: str, client: openai.OpenAI) -> None:
    body = {"messages": HELLO, "temperature": 0, "max_tokens": 18}
    more = {
        "top_p": None,
        "stop": None,
        "model": None,
        "mirostat": None,
        "seed": -1,
        "user": "me",
        "store": False,
        "dry_multiplier": 0.0,
        "dry_base": 1.75,
        "n": 1,
    }
    reply = fetch(url, "/v1/chat/completions", body | more)
    assert reply.status == 200
    assert reply.json()["choices"][0]["message"]["content"] == ask(client).choices[0].message.content


def test_text_parts_are_text(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": HELLO[0]["content"]}]
    answer = ask(client, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == ask(client).choices[0].message.content


def test_logprobs(client: openai.OpenAI) -> None:
    whole = ask(client, max_tokens=6, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(whole) == 6
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in whole)
    assert all(token.logprob == max(top.logprob for top in token.top_logprobs) for token in whole), "greedy"
    chunks = ask(client, max_tokens=6, logprobs=True, top_logprobs=2, stream=True)
    streamed = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in whole]


def test_named_tool_is_called_by_its_schema(client: openai.OpenAI) -> None:
    (call,) = ask(client, tools=[WEATHER], tool_choice=NAMED, **ONE_CALL).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json_of(call.function.arguments)) == {"city"}


def test_one_of_the_tools_can_be_required(client: openai.OpenAI) -> None:
    other = {"type": "function", "function": {"name": "get_time"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_weather"}}]}
    choices = ("required", {"type": "allowed_tools", "allowed_tools": allowed})
    for tools, choice in (([WEATHER], choices[0]), ([other, WEATHER], choices[0]), ([other, WEATHER], choices[1])):
        message = ask(client, tools=tools, tool_choice=choice, **ONE_CALL).choices[0].message
        (call,) = message.tool_calls
        assert call.function.name in (
            [tool["function"]["name"] for tool in tools] if choice == "required" else ["get_weather"]
        )
        assert message.content is None
        assert message.function_call is None


def test_tool_without_parameters(client: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "get_weather"}}
    (call,) = ask(client, tools=[tool], tool_choice=NAMED, **ONE_CALL).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {}


def test_streamed_tool_call_can_be_joined(client: openai.OpenAI) -> None:
    """As openai's own helper does it: strings that come again are put behind each other."""
    options = {"messages": HELLO, "temperature": 0, "tools": [WEATHER], "tool_choice": NAMED, **ONE_CALL}
    with client.chat.completions.stream(model=NAME, **options) as stream:
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "get_weather"
    whole = ask(client, tools=[WEATHER], tool_choice=NAMED, **ONE_CALL).choices[0].message.tool_calls[0]
    assert call.function.arguments == whole.function.arguments


def test_json_schema(client: openai.OpenAI) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR, "strict": True}}
    answer = json.loads(ask(client, response_format=response_format, max_tokens=64).choices[0].message.content)
    assert answer["colour"] in ("red", "green")
    assert isinstance(answer["dark"], bool)


def test_json_object_with_schema(client: openai.OpenAI) -> None:
    response_format = {"type": "json_object", "schema": COLOUR}
    answer = json.loads(ask(client, response_format=response_format, max_tokens=64).choices[0].message.content)
    assert answer["colour"] in ("red", "green")


# --- completions ---------------------------------------------------------------------------------------


def test_completion_of_text_a_list_and_token_ids(client: openai.OpenAI, served: MaskProbeLlama) -> None:
    prompt = "The days of the week are Monday,"
    own = served.create_completion(prompt, temperature=0.0)
    for form in (prompt, [prompt], served.tokenize(prompt)):
        answer = client.completions.create(model=NAME, prompt=form, temperature=0)
        assert answer.choices[0].text == own["choices"][0]["text"]
        assert answer.usage.completion_tokens == 16, "OpenAI's default"
    assert answer.timings["predicted_n"] == 16


def test_streamed_completion(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": NAME, "prompt": "One, two,", "temperature": 0, "echo": True}
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].text for chunk in chunks[:-1])
    assert text == client.completions.create(**options).choices[0].text
    assert text.startswith("One, two,")
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 16


def test_completion_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=NAME, prompt="One, two,", temperature=0, logprobs=3, max_tokens=4)
    assert len(answer.choices[0].logprobs.token_logprobs) == 4
    assert "".join(answer.choices[0].logprobs.tokens) == answer.choices[0].text


# --- models, health ------------------------------------------------------------------------------------


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == NAME
    assert model.meta["n_ctx"] == 1024
    assert client.models.retrieve(NAME) == model


def test_model_may_be_left_out_but_not_be_another(client: openai.OpenAI, url: str) -> None:
    assert fetch(url, "/v1/chat/completions", {"messages": HELLO, "max_tokens": 1}).status == 200
    for call in (lambda: ask(client, model="gpt-5"), lambda: client.models.retrieve("gpt-5")):
        with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'") as caught:
            call()
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_health(url: str) -> None:
    assert fetch(url, "/health").json() == {"status": "ok"}


# --- errors --------------------------------------------------------------------------------------------


def test_openai_client_raises_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        ask(client, temperature=-1)
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")


def test_prompt_that_does_not_fit(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="n_ctx=1024") as caught:
            ask(client, messages=[{"role": "user", "content": "word " * 2000}], stream=stream)
        assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")


def test_error_in_mid_stream_is_an_event_and_the_server_goes_on(
    url: str, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, passes = Session.step, []

    def fails(session: Session, passed: Pass) -> None:
        passes.append(1)
        if len(passes) == 3:
            raise DecodeError("llama_decode failed")
        step(session, passed)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", fails)
        with closing(connect(url)) as connection:
            send(connection, "/v1/chat/completions", {"messages": HELLO, "stream": True})
            response = connection.getresponse()
            *events, last, end = response.read().decode().split("\n\n")
    assert response.status == 200
    assert len(events) >= 3
    assert end == ""
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error == {
        "message": "the model failed: llama_decode failed",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert ask(client).choices[0].finish_reason == "length"


def test_failure_before_the_first_token_is_a_500(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(session: Session, passed: Pass) -> None:
        raise DecodeError("llama_decode failed")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "prefill", fails)
        reply = fetch(url, "/v1/chat/completions", {"messages": HELLO, "stream": True})
    assert (reply.status, reply.error()["type"]) == (500, "server_error")


# --- prompts of chats ---------------------------------------------------------------------------------


def prompt_tokens(url: str, **body: Any) -> int:
    reply = fetch(url, "/v1/chat/completions", {"max_tokens": 1, "temperature": 0} | body)
    assert reply.status == 200, reply.body
    return int(reply.json()["usage"]["prompt_tokens"])


def test_a_last_message_of_the_assistants_is_continued(url: str, served: MaskProbeLlama) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Monday, "}]
    for more in ({}, {"continue_final_message": False}, {"add_generation_prompt": False}):
        assert prompt_tokens(url, messages=messages, **more) == len(served.apply_chat_template(messages, **more))
    ids = served.apply_chat_template(messages)
    assert served.detokenize(ids, special=True).endswith("<|im_start|>assistant\nMonday, ")


def test_template_variables_reach_the_template(
    url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ messages[0].content }}{{ ' a' * (length or 1) }}{% if enable_thinking is false %} b b b b{% endif %}"
    formats = ChatFormats("model.gguf", {"tokenizer.chat_template": template}, "", "", None, None)
    monkeypatch.setattr(served, "chat_formats", formats)
    least = prompt_tokens(url, messages=HELLO)
    assert prompt_tokens(url, messages=HELLO, chat_template_kwargs={"length": 9}) == least + 8
    assert prompt_tokens(url, messages=HELLO, chat_template_kwargs={"enable_thinking": False}) == least + 4
    assert prompt_tokens(url, messages=HELLO, reasoning_effort="none") == least + 4
    assert prompt_tokens(url, messages=HELLO, reasoning_effort="low") == least


def test_an_agents_conversation_as_openais_client_sends_it(url: str, served: MaskProbeLlama) -> None:
    function = {"name": "today", "arguments": '{"zone": "UTC"}'}
    messages: list[dict[str, Any]] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Monday"}]},
    ]
    tools = [{"type": "function", "function": {"name": "today", "parameters": {"type": "object", "properties": {}}}}]
    assert prompt_tokens(url, messages=messages, tools=tools) == len(served.apply_chat_template(messages, tools))


def test_llama_servers_json_schema(url: str) -> None:
    schema = {"type": "object", "properties": {"day": {"enum": ["Monday"]}}, "required": ["day"]}
    body = {"json_schema": schema, "temperature": 0, "max_tokens": 40}
    chat = fetch(url, "/v1/chat/completions", body | {"messages": HELLO}).json()["choices"][0]
    assert json.loads(chat["message"]["content"]) == {"day": "Monday"}
    text = fetch(url, "/v1/completions", body | {"prompt": "A day in JSON:"}).json()["choices"][0]["text"]
    assert json.loads(text) == {"day": "Monday"}


def test_docs_list_what_is_ignored() -> None:
    text = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")
    assert [field for field in (*IGNORED, *NEUTRAL) if f"`{field}`" not in text] == []
