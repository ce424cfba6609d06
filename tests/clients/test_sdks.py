"""The packages openai and anthropic against the server: chats with tools, responses, messages."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from scripted import ScriptedLlama, call

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
WEATHER = call("get_weather", city="Oslo")
FINAL = "It is cold in Oslo."


@pytest.fixture
def client(server: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("streamed", [False, True])
def test_openai_chats_with_a_tool(streamed: bool, model: ScriptedLlama, client: openai.OpenAI) -> None:
    model.says(WEATHER, FINAL)
    messages: list[Any] = [{"role": "user", "content": "Is it cold in Oslo?"}]

    def ask() -> Any:
        if not streamed:
            return client.chat.completions.create(model="smollm2", messages=messages, tools=[TOOL]).choices[0]
        with client.chat.completions.stream(model="smollm2", messages=messages, tools=[TOOL]) as stream:
            return stream.get_final_completion().choices[0]

    first = ask()
    assert first.finish_reason == "tool_calls"
    [asked] = first.message.tool_calls
    assert (asked.function.name, asked.function.arguments) == ("get_weather", '{"city": "Oslo"}')
    messages += [first.message.model_dump(exclude_unset=True, exclude={"parsed"})]
    for made in messages[-1]["tool_calls"]:
        made["function"].pop("parsed_arguments", None)
    messages += [{"role": "tool", "tool_call_id": asked.id, "content": "3 degrees"}]
    second = ask()
    assert (second.message.content, second.finish_reason) == (FINAL, "stop")


@pytest.mark.parametrize("streamed", [False, True])
def test_openai_responses_with_a_tool(streamed: bool, model: ScriptedLlama, client: openai.OpenAI) -> None:
    model.says(WEATHER, FINAL)
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": False}]

    def ask(**arguments: Any) -> Any:
        if not streamed:
            return client.responses.create(model="smollm2", tools=tools, **arguments)
        with client.responses.stream(model="smollm2", tools=tools, **arguments) as stream:
            return stream.get_final_response()

    first = ask(input="Is it cold in Oslo?")
    [asked] = [item for item in first.output if item.type == "function_call"]
    assert (asked.name, asked.arguments) == ("get_weather", '{"city": "Oslo"}')
    result = {"type": "function_call_output", "call_id": asked.call_id, "output": "3 degrees"}
    second = ask(input=[result], previous_response_id=first.id)
    assert second.output_text == FINAL
    assert model.roles() == ["user", "assistant", "tool"]


@pytest.mark.parametrize("streamed", [False, True])
def test_anthropic_messages_with_a_tool(streamed: bool, model: ScriptedLlama, server: str) -> None:
    model.says(WEATHER, FINAL)
    client = anthropic.Anthropic(base_url=server, api_key="none", max_retries=0)
    tools: Any = [{"name": "get_weather", "description": "The weather.", "input_schema": PARAMETERS}]
    messages: list[Any] = [{"role": "user", "content": "Is it cold in Oslo?"}]

    def ask() -> Any:
        arguments: dict[str, Any] = {"model": "smollm2", "max_tokens": 80, "messages": messages, "tools": tools}
        if not streamed:
            return client.messages.create(**arguments)
        with client.messages.stream(**arguments) as stream:
            return stream.get_final_message()

    first = ask()
    assert first.stop_reason == "tool_use"
    [asked] = [block for block in first.content if block.type == "tool_use"]
    assert (asked.name, asked.input) == ("get_weather", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": asked.id, "content": "3 degrees"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ask()
    assert (second.content[0].text, second.stop_reason) == (FINAL, "end_turn")
    counted = client.messages.count_tokens(model="smollm2", messages=messages, tools=tools)
    assert counted.input_tokens == second.usage.input_tokens + (second.usage.cache_read_input_tokens or 0)
