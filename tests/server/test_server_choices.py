"""Several choices of one answer, several prompts of one request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from server_fixtures import HELLO, NAME, fetch, metric, openai_client

from maskprobe import MaskProbeLlama
from maskprobe.server.wire import Chunks

DRAWN = {"temperature": 1.5, "seed": 2**32 - 2, "max_tokens": 8}  # the last one that is no word for a random one


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai_client(url) as client:
        yield client


def joined(chunks: Any, texts_of: Any) -> dict[int, str]:
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (texts_of(choice) or "")
    return texts


def test_choices_are_those_of_requests_with_the_next_seeds(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=NAME, messages=HELLO, n=3, **DRAWN)
    singles = [
        client.chat.completions.create(model=NAME, messages=HELLO, **DRAWN | {"seed": seed})
        for seed in (2**32 - 2, 0, 1)
    ]
    texts = [choice.message.content for choice in answer.choices]
    assert texts == [single.choices[0].message.content for single in singles]
    assert len(set(texts)) == 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.prompt_tokens == singles[0].usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(single.usage.completion_tokens for single in singles)
    assert all(choice.timings["predicted_n"] == 8 for choice in answer.choices)
    cached = answer.usage.prompt_tokens_details.cached_tokens
    assert cached == answer.choices[0].timings["cache_n"], "those of the prompt, which counts once"


def test_streamed_choices_are_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=NAME, messages=HELLO, n=2, **DRAWN)
    *chunks, last = client.chat.completions.create(
        model=NAME, messages=HELLO, n=2, stream=True, stream_options={"include_usage": True}, **DRAWN
    )
    assert joined(chunks, lambda choice: choice.delta.content) == {
        choice.index: choice.message.content for choice in whole.choices
    }
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["length", "length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_choices_without_a_seed_differ(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=NAME, prompt="A colour:", n=3, temperature=1.5, max_tokens=8)
    assert len({choice.text for choice in answer.choices}) > 1, "the served model has a seed of its own"


def test_prompts_in_a_list(client: openai.OpenAI, served: MaskProbeLlama) -> None:
    texts = ["The days of the week are Monday,", "One, two,"]
    options: dict[str, Any] = {"model": NAME, "temperature": 0, "max_tokens": 4}
    singles = [client.completions.create(prompt=text, **options) for text in texts]
    for form in (texts, [served.tokenize(text) for text in texts], [texts[0], served.tokenize(texts[1])]):
        answer = client.completions.create(prompt=form, **options)
        assert [choice.text for choice in answer.choices] == [single.choices[0].text for single in singles]
        assert answer.usage.prompt_tokens == sum(single.usage.prompt_tokens for single in singles)
    chunks = client.completions.create(prompt=texts, n=2, stream=True, **options)
    expected = [single.choices[0].text for single in singles for _ in range(2)]
    assert joined(chunks, lambda choice: choice.text) == dict(enumerate(expected))


def test_calls_of_each_choice_are_named_once() -> None:
    form = Chunks(wants_usage=False)
    function = {"name": "f", "arguments": ""}
    first = {"index": 0, "id": "a", "type": "function", "function": function}
    more = {"index": 0, "id": "a", "type": "function", "function": function | {"arguments": "{}"}}

    def said(choice: int, call: dict[str, Any]) -> Any:
        delta = {"content": None, "function_call": function, "tool_calls": [call]}
        event = form.events({"choices": [{"index": choice, "delta": delta, "finish_reason": None}]})
        return json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]

    for choice in (0, 1):
        assert said(choice, first) == {"tool_calls": [first]}
        assert said(choice, more) == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}


def test_a_prompt_that_does_not_fit_among_others(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n_ctx=1024"):
        client.completions.create(model=NAME, prompt=["One", "word " * 2000], max_tokens=1)


def test_cached_tokens_are_in_the_usage(url: str, client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": NAME, "messages": HELLO, "max_tokens": 2, "temperature": 0}
    client.chat.completions.create(**options)
    for cache, stream in ((True, False), (True, True), (False, True)):
        how = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        answer = client.chat.completions.create(**options, **how, extra_body={"cache_prompt": cache})
        *_, last = answer if stream else [answer]
        cached = last.usage.prompt_tokens_details.cached_tokens
        assert cached == last.timings["cache_n"]
        assert (cached > 0) == cache
    twice = client.completions.create(model=NAME, prompt=["One, two,"] * 2, max_tokens=1)
    cached = [choice.timings["cache_n"] for choice in twice.choices]
    assert twice.usage.prompt_tokens_details.cached_tokens == sum(cached) > cached[0]
    completion = client.completions.create(model=NAME, prompt="One, two,", max_tokens=1)
    again = client.completions.create(model=NAME, prompt="One, two,", max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert again.usage.total_tokens == completion.usage.total_tokens


def test_a_request_of_many_choices_is_one_request(url: str) -> None:
    name = 'maskprobe:requests_total{outcome="finished"}'
    before = metric(url, name)
    assert fetch(url, "/v1/completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 1}).status == 200
    assert metric(url, name) == before + 1


def test_an_error_in_a_later_choice_of_a_stream_is_an_event(url: str) -> None:
    body = {"prompt": ["One", "word " * 2000], "max_tokens": 1, "stream": True}
    reply = fetch(url, "/v1/completions", body)
    assert reply.status == 200
    *_, last = reply.body.decode().strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "context_length_exceeded"
