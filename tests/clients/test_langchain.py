"""LangChain: its classes over llama_cpp.Llama with ours in its place, and its agents against the server."""

from __future__ import annotations

import re
from typing import Any

import llama_cpp
import pytest
from langchain_community.chat_models import ChatLlamaCpp
from langchain_community.llms import LlamaCpp
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel, Field
from run_examples import printed
from scripted import ScriptedLlama, call

from maskprobe import MaskProbeLlama, embedded_model

SETTINGS: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "n_threads": 1, "n_batch": 64, "verbose": False}


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"3 degrees in {city}"


def text_of(cls: Any, prompt: str, **options: Any) -> tuple[str, str]:
    """The whole answer and the streamed one."""
    llm = cls(model_path=str(embedded_model()), model_kwargs={"flash_attn": True}, **SETTINGS | options)
    whole, parts = llm.invoke(prompt), list(llm.stream(prompt))
    if isinstance(whole, str):
        return whole, "".join(parts)
    return whole.content, "".join(part.content for part in parts)


@pytest.mark.parametrize(("cls", "prompt"), [(LlamaCpp, "1, 2, 3, 4,"), (ChatLlamaCpp, "Name a colour.")])
def test_patched_classes_answer_as_before(cls: Any, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = text_of(cls, prompt)
    assert expected[0]
    monkeypatch.setattr(llama_cpp, "Llama", MaskProbeLlama)
    assert text_of(cls, prompt) == expected


def test_what_it_cannot_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "Llama", MaskProbeLlama)
    with pytest.raises(ValueError, match="f16_kv=False is not supported: type_k"):
        LlamaCpp(model_path=str(embedded_model()), f16_kv=False)


def chat(llm: MaskProbeLlama) -> ChatLlamaCpp:
    """An object that was made before, without loading another."""
    return ChatLlamaCpp.model_construct(client=llm, model_path=str(llm.model_path), max_tokens=40, temperature=0.0)


def test_a_loaded_model_can_be_given(drop_in: MaskProbeLlama) -> None:
    assert chat(drop_in).invoke("Say hello.").content
    person = chat(drop_in).with_structured_output(Person).invoke("Ann is 30.")
    assert isinstance(person, Person)


def server_chat(server: str) -> ChatOpenAI:
    return ChatOpenAI(model="smollm2", base_url=f"{server}/v1", api_key="none", temperature=0, max_retries=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_react_agent_uses_its_tool(streaming: bool, model: ScriptedLlama, server: str) -> None:
    model.says(call("get_weather", city="Oslo"), "It is cold in Oslo.")
    agent = create_react_agent(server_chat(server), [get_weather])
    question: Any = {"messages": [("user", "Is it cold in Oslo?")]}
    if streaming:
        *_, (_, result) = agent.stream(question, stream_mode=["messages", "values"])
    else:
        result = agent.invoke(question)
    kinds = [message.type for message in result["messages"]]
    assert kinds == ["human", "ai", "tool", "ai"]
    assert result["messages"][2].content == "3 degrees in Oslo"
    assert result["messages"][3].content == "It is cold in Oslo."
    assert model.roles() == ["user", "assistant", "tool"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(method: Any, model: ScriptedLlama, server: str) -> None:
    if method == "json_mode":
        model.says('{"name": "Ann", "age": 30}')
    found = server_chat(server).with_structured_output(Person, method=method).invoke("Ann, 30, as JSON.")
    assert isinstance(found, Person)


def test_the_responses_api(model: ScriptedLlama, server: str) -> None:
    model.says("Hello.")
    llm = ChatOpenAI(model="smollm2", base_url=f"{server}/v1", api_key="none", max_retries=0, use_responses_api=True)
    assert llm.invoke("Hi").text == "Hello."


def test_the_example(model: ScriptedLlama, server: str) -> None:
    model.says("A tower with a light.", "It points north.")
    said = printed("langchain_chain", server)
    expected = r"answer: A tower with a light\.\nstream: It points north\.\nperson: name='.{0,20}' age=\d{1,3}\n"
    assert re.fullmatch(expected, said), said
    assert [message["content"] for message in model.asked[0]["messages"]] == [
        "Answer in one sentence.",
        "What is a lighthouse?",
    ]
