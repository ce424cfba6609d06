"""litellm against the server: OpenAI's and Anthropic's routes."""

from __future__ import annotations

from typing import Any

import litellm
import pytest
from scripted import ScriptedLlama, call

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
QUESTION = [{"role": "user", "content": "Is it cold in Oslo?"}]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
def test_chats_with_a_tool(provider: str, streamed: bool, model: ScriptedLlama, server: str) -> None:
    model.says(call("get_weather", city="Oslo"), "It is cold in Oslo.")
    base = f"{server}/v1" if provider == "openai" else server
    messages: list[Any] = list(QUESTION)

    def ask() -> Any:
        answer = litellm.completion(
            model=f"{provider}/smollm2",
            api_base=base,
            api_key="none",
            messages=messages,
            tools=[TOOL],
            max_tokens=80,
            stream=streamed,
        )
        return litellm.stream_chunk_builder(list(answer)).choices[0] if streamed else answer.choices[0]

    first = ask()
    assert first.finish_reason == "tool_calls"
    [asked] = first.message.tool_calls
    assert (asked.function.name, asked.function.arguments.replace(" ", "")) == ("get_weather", '{"city":"Oslo"}')
    messages += [first.message.model_dump(), {"role": "tool", "tool_call_id": asked.id, "content": "3 degrees"}]
    assert ask().message.content == "It is cold in Oslo."


def test_a_required_tool(model: ScriptedLlama, server: str) -> None:
    answer: Any = litellm.completion(
        model="openai/smollm2",
        api_base=f"{server}/v1",
        api_key="none",
        messages=QUESTION,
        tools=[TOOL],
        tool_choice="required",
        max_tokens=80,
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_responses(model: ScriptedLlama, server: str) -> None:
    model.says("Hello.")
    answer: Any = litellm.responses(model="openai/smollm2", api_base=f"{server}/v1", api_key="none", input="Hi")
    assert answer.output[-1].content[0].text == "Hello."
