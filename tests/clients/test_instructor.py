"""instructor: patched over a MaskProbeLlama, and all its modes for OpenAI's client against the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import instructor
import openai
import pytest
from pydantic import BaseModel, Field
from scripted import ScriptedLlama, call

from maskprobe import MaskProbeLlama

QUESTION = [{"role": "user", "content": "Ann is 30. Extract her as JSON."}]
JSON = '{"name": "Ann", "age": 30}'


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)


@pytest.mark.parametrize("mode", [instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS])
def test_a_patched_model(mode: Any, drop_in: MaskProbeLlama) -> None:
    create = instructor.patch(create=drop_in.create_chat_completion_openai_v1, mode=mode)
    person = create(messages=QUESTION, response_model=Person, max_tokens=60, temperature=0.0)
    assert isinstance(person, Person)


SCRIPTS = {
    "TOOLS": [],
    "TOOLS_STRICT": [],
    "JSON": [JSON],
    "JSON_SCHEMA": [],
    "MD_JSON": [f"```json\n{JSON}\n```"],
    "PARALLEL_TOOLS": [call("Person", name="Ann", age=30) + "\n" + call("Person", name="Bob", age=31)],
}


@pytest.mark.parametrize("mode", SCRIPTS)
def test_modes(mode: str, model: ScriptedLlama, server: str) -> None:
    model.says(*SCRIPTS[mode])
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0), mode=instructor.Mode[mode]
    )
    wanted: Any = Iterable[Person] if mode == "PARALLEL_TOOLS" else Person
    found = client.chat.completions.create(
        model="smollm2", messages=QUESTION, response_model=wanted, max_tokens=80, temperature=0, max_retries=1
    )
    people = list(found) if mode == "PARALLEL_TOOLS" else [found]
    assert all(isinstance(person, Person) for person in people)
    if SCRIPTS[mode]:
        assert people[0].model_dump() == {"name": "Ann", "age": 30}
    assert len(people) == (2 if mode == "PARALLEL_TOOLS" else 1)
