"""openai-agents and pydantic-ai against the server: two turns with a tool, and output types."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from run_examples import FOLDER, printed
from scripted import ScriptedLlama, call

WEATHER = call("get_weather", city="Oslo")


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"3 degrees in {city}"


MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}


def agent(api: str, server: str, **settings: Any) -> Agent[Any]:
    client = AsyncOpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    return Agent(
        name="a",
        instructions="Be brief.",
        model=MODELS[api](model="smollm2", openai_client=client),
        model_settings=ModelSettings(max_tokens=80, temperature=0),
        **settings,
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("api", MODELS)
def test_two_turns_with_a_tool(api: str, streamed: bool, model: ScriptedLlama, server: str) -> None:
    model.says(WEATHER, "It is cold in Oslo.", "And in Rome?")

    async def converse() -> list[str]:
        asked = agent(api, server, tools=[get_weather])
        if streamed:
            first: Any = Runner.run_streamed(asked, "Is it cold in Oslo?")
            async for _ in first.stream_events():
                pass
        else:
            first = await Runner.run(asked, "Is it cold in Oslo?")
        later = [*first.to_input_list(), {"role": "user", "content": "And?"}]
        return [first.final_output, (await Runner.run(asked, later)).final_output]

    assert asyncio.run(converse()) == ["It is cold in Oslo.", "And in Rome?"]
    assert model.roles(1) == ["system", "user", "assistant", "tool"]
    assert model.roles(2) == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert "3 degrees in Oslo" in str(model.asked[1]["messages"][-1]["content"])


@pytest.mark.parametrize("api", MODELS)
def test_an_output_type(api: str, model: ScriptedLlama, server: str) -> None:
    result = asyncio.run(Runner.run(agent(api, server, output_type=Person), "Ann is 30."))
    assert isinstance(result.final_output, Person)


def pydantic_agent(server: str, **settings: Any) -> PydanticAgent[Any, Any]:
    provider = OpenAIProvider(base_url=f"{server}/v1", api_key="none")
    return PydanticAgent(
        OpenAIChatModel("smollm2", provider=provider), model_settings={"max_tokens": 80, "temperature": 0}, **settings
    )


def test_pydantic_ai_uses_its_tool(model: ScriptedLlama, server: str) -> None:
    model.says(WEATHER, "It is cold in Oslo.")
    asked = pydantic_agent(server)

    @asked.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"3 degrees in {city}"

    assert asked.run_sync("Is it cold in Oslo?").output == "It is cold in Oslo."
    assert model.roles() == ["user", "assistant", "tool"]


def test_pydantic_ai_streams(model: ScriptedLlama, server: str) -> None:
    model.says("It is cold in Oslo.")

    async def text() -> str:
        async with pydantic_agent(server).run_stream("Is it cold?") as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    assert asyncio.run(text()) == "It is cold in Oslo."


@pytest.mark.parametrize("kind", [ToolOutput, NativeOutput])
def test_pydantic_ai_has_output_types(kind: Any, model: ScriptedLlama, server: str) -> None:
    assert isinstance(pydantic_agent(server, output_type=kind(Person)).run_sync("Ann is 30.").output, Person)


def test_the_example(model: ScriptedLlama, server: str) -> None:
    model.says("It has many words.")
    said = printed("agent", server)
    found = re.fullmatch(r"tool: (\S+) has (\d+) words\nanswer: It has many words\.\n", said)
    assert found, said
    assert int(found[2]) == len((FOLDER / found[1]).read_text(encoding="utf-8").split())
    assert model.roles() == ["system", "user", "assistant", "tool"]
    assert model.asked[-1]["messages"][-1]["content"] == f"{found[1]} has {found[2]} words."
