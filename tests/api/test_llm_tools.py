"""Tools, reasoning and asyncio in the plugin for `llm`; what the model answers is forced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import llm
import pytest
from llm.parts import AttachmentPart, Message, ReasoningPart, TextPart, ToolCallPart

from maskprobe.llama import MaskProbeLlama
from maskprobe.llm_plugin import models

SMOLLM2 = "maskprobe/smollm2"
OPTIONS = {"temperature": 0.0, "max_tokens": 12, "n_threads": 1, "n_ctx": 1024, "speculate": "budget=4"}
THOUGHT = {"reasoning_content": "I need the weather."}
CALLS = [
    {
        "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        ]
    },
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    {
        "tool_calls": [
            {
                "index": 1,
                "id": "call_2",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
            }
        ]
    },
]


class Forced:
    """Answers of create_chat_completion, one after another, and what it was asked."""

    def __init__(self, answers: list[list[dict[str, Any]]], reason: str) -> None:
        self.answers = answers
        self.reason = reason
        self.asked: list[dict[str, Any]] = []

    def stream(self, messages: Any, **options: Any) -> Iterator[dict[str, Any]]:
        self.asked.append({"messages": messages, **options})
        deltas = self.answers.pop(0)
        for delta in [{"role": "assistant"}, *deltas]:
            yield {"choices": [{"delta": delta, "finish_reason": None}]}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        last = {"choices": [{"delta": {}, "finish_reason": self.reason}]}
        yield last | {"usage": usage, "timings": {"cache_n": 0}}


def force(patch: pytest.MonkeyPatch, *answers: list[dict[str, Any]], reason: str = "stop") -> Forced:
    forced = Forced(list(answers), reason)
    patch.setattr(
        MaskProbeLlama, "create_chat_completion", lambda self, messages, **options: forced.stream(messages, **options)
    )
    return forced


def weather(city: str) -> str:
    """The weather in a city."""
    return f"3 degrees in {city}"


def check_conversation(forced: Forced) -> None:
    first, second = forced.asked
    assert first["messages"] == [{"role": "user", "content": "Oslo and Rome?"}]
    [tool] = first["tools"]
    assert (tool["type"], tool["function"]["name"]) == ("function", "weather")
    assert tool["function"]["description"] == "The weather in a city."
    assert tool["function"]["parameters"]["required"] == ["city"]
    assert second["tools"] == first["tools"]
    _, said, *results = second["messages"]
    assert (said["role"], said["content"], said["reasoning_content"]) == ("assistant", "", "I need the weather.")
    assert [call["id"] for call in said["tool_calls"]] == ["call_1", "call_2"]
    assert [json.loads(call["function"]["arguments"])["city"] for call in said["tool_calls"]] == ["Oslo", "Rome"]
    assert results == [
        {"role": "tool", "tool_call_id": "call_1", "content": "3 degrees in Oslo"},
        {"role": "tool", "tool_call_id": "call_2", "content": "3 degrees in Rome"},
    ]


def test_a_tool_is_called_and_its_results_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = force(monkeypatch, [THOUGHT, *CALLS], [{"content": "Cold "}, {"content": "in both."}])
    chain = llm.get_model(SMOLLM2).chain("Oslo and Rome?", tools=[weather], options=OPTIONS)
    assert chain.text().strip() == "Cold in both."
    check_conversation(forced)
    first, last = chain._responses
    assert [part.text for part in first.messages()[0].parts if isinstance(part, ReasoningPart)] == [
        "I need the weather."
    ]
    assert [call.name for call in first.tool_calls()] == ["weather", "weather"]
    assert last.tool_calls() == []
    assert last.usage().input == 7


def test_the_same_by_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = force(monkeypatch, [THOUGHT, *CALLS], [{"content": "Cold "}, {"content": "in both."}])

    async def text() -> str:
        return await llm.get_async_model(SMOLLM2).chain("Oslo and Rome?", tools=[weather], options=OPTIONS).text()

    assert asyncio.run(text()).strip() == "Cold in both."
    check_conversation(forced)


def test_a_call_that_was_cut_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = force(monkeypatch, CALLS[:2], reason="length")
    chain = llm.get_model(SMOLLM2).chain("Oslo and Rome?", tools=[weather], options=OPTIONS)
    chain.text()
    assert len(forced.asked) == 1
    [response] = chain._responses
    assert response.tool_calls() == []
    assert response.json()["finish_reason"] == "length"
    [part] = response.messages()[0].parts
    assert isinstance(part, ToolCallPart)
    assert '{"city": ' in str(part.arguments)


def test_attachments_are_refused_by_name() -> None:
    said = Message(role="user", parts=[TextPart(text="What is this?"), AttachmentPart(attachment=None)])
    with pytest.raises(ValueError, match="text alone"):
        list(models._said(said))


def test_asynchronous_prompts_take_turns() -> None:
    model = llm.get_async_model(SMOLLM2)
    questions = ["Name a colour.", "Name a bird.", "Name a river."]

    async def answers() -> list[str]:
        responses = [model.prompt(question, **OPTIONS) for question in questions]
        return [str(text) for text in await asyncio.gather(*(response.text() for response in responses))]

    together = asyncio.run(answers())
    assert together == [llm.get_model(SMOLLM2).prompt(question, **OPTIONS).text() for question in questions]


def test_an_asynchronous_prompt_can_be_given_up() -> None:
    model = llm.get_async_model(SMOLLM2)

    async def give_up() -> tuple[str, str]:
        execute = model.execute
        long = model.prompt("Count to a hundred.", **OPTIONS | {"max_tokens": 400})
        pieces = execute(long.prompt, True, long, None)
        async with aclosing(pieces):
            first = await anext(pieces)
        task = asyncio.ensure_future(model.prompt("Count again.", **OPTIONS | {"max_tokens": 400}).text())
        await asyncio.sleep(0)  # it is asked for
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return str(first), str(await model.prompt("Name a colour.", **OPTIONS).text())

    first, after = asyncio.run(asyncio.wait_for(give_up(), 60))
    assert first
    assert after == llm.get_model(SMOLLM2).prompt("Name a colour.", **OPTIONS).text()


def test_errors_reach_the_one_who_awaits() -> None:
    model = llm.get_async_model(SMOLLM2)

    async def bad() -> str:
        return str(await model.prompt("Hi", **OPTIONS | {"temperature": -1.0}).text())

    with pytest.raises(ValueError, match="temperature must be at least 0"):
        asyncio.run(bad())


def test_an_asynchronous_schema_shapes_the_answer() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}

    async def answer() -> str:
        response = llm.get_async_model(SMOLLM2).prompt("Ada is 36.", schema=schema, **OPTIONS | {"max_tokens": 40})
        return str(await response.text())

    assert isinstance(json.loads(asyncio.run(answer()))["age"], int)
