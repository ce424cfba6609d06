"""llama-index: LlamaCPP with ours in place of llama_cpp.Llama, and OpenAILike with an agent against the server."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import llama_index.llms.llama_cpp.base as their_module
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.llama_cpp import LlamaCPP
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field
from run_examples import printed
from scripted import ScriptedLlama, call

from maskprobe import MaskProbeLlama, embedded_model


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)


def texts() -> tuple[str, str, int]:
    llm = LlamaCPP(
        model_path=str(embedded_model()),
        max_new_tokens=12,
        temperature=0.0,
        context_window=512,
        model_kwargs={"n_threads": 1, "flash_attn": True},
        verbose=False,
        completion_to_prompt=lambda prompt: prompt,
        messages_to_prompt=lambda messages: "",
    )
    whole = llm.complete("1, 2, 3, 4,").text
    streamed = [part.delta or "" for part in llm.stream_complete("1, 2, 3, 4,")]
    return whole, "".join(streamed), llm.metadata.context_window


def test_a_patched_class_answers_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = texts()
    assert expected[0]
    monkeypatch.setattr(their_module, "Llama", MaskProbeLlama)
    assert texts() == expected


def like(server: str) -> OpenAILike:
    return OpenAILike(
        model="smollm2",
        api_base=f"{server}/v1",
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=80,
        temperature=0,
        max_retries=0,
        context_window=4096,
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_a_function_agent_uses_its_tool(streaming: bool, model: ScriptedLlama, server: str) -> None:
    model.says(call("get_weather", city="Oslo"), "It is cold in Oslo.")

    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"3 degrees in {city}"

    async def ask() -> str:
        agent: Any = FunctionAgent(
            tools=[get_weather], llm=like(server), system_prompt="Be brief.", streaming=streaming
        )
        return str(await agent.run("Is it cold in Oslo?"))

    assert asyncio.run(ask()) == "It is cold in Oslo."
    assert model.roles() == ["system", "user", "assistant", "tool"]


def test_structured_prediction(model: ScriptedLlama, server: str) -> None:
    assert isinstance(like(server).structured_predict(Person, PromptTemplate("Ann is 30.")), Person)


def test_the_example() -> None:
    said = printed("llama_index_documents")
    assert re.fullmatch(r"answer: .+\nstream: .+\n", said, re.DOTALL), said
