"""outlines.from_llamacpp with a MaskProbeLlama: its logits processors shape the text, and drafts go on."""

from __future__ import annotations

import json
from typing import Any, Literal

import outlines
import pytest
from pydantic import BaseModel, Field

from maskprobe import MaskProbeLlama


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)


@pytest.fixture(scope="module")
def generator(drop_in: MaskProbeLlama) -> Any:
    return outlines.from_llamacpp(drop_in)


def test_plain_text(generator: Any) -> None:
    assert generator("Name a colour.", max_tokens=6)


def test_a_schema(generator: Any) -> None:
    text = generator("Ann is 30.", Person, max_tokens=60, temperature=0.0)
    assert Person.model_validate_json(text)


def test_a_choice_and_a_stream(generator: Any) -> None:
    assert generator("Red or blue?", Literal["red", "blue"], max_tokens=8) in ("red", "blue")
    pieces = list(generator.stream("Ann is 30.", Person, max_tokens=60, temperature=0.0))
    assert len(pieces) > 3
    assert json.loads("".join(piece or "" for piece in pieces))


def test_drafts_go_on(generator: Any, drop_in: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, Any]] = []
    complete = MaskProbeLlama.create_chat_completion

    def noted(self: MaskProbeLlama, *args: Any, **options: Any) -> Any:
        answers.append(complete(self, *args, **options))
        return answers[-1]

    monkeypatch.setattr(MaskProbeLlama, "create_chat_completion", noted)
    words = outlines.regex("[A-Za-z ,.]{30,90}")
    question = "Repeat: one, two, three, four, five, six, seven, one, two, three, four, five, six, seven."
    text = generator(question, words, max_tokens=40, temperature=0.0)
    plain = generator(question, words, max_tokens=40, temperature=0.0, speculate=False)
    assert text == plain
    assert answers[0]["timings"]["draft_n_accepted"] > 0
    assert answers[0]["timings"]["passes"] < answers[1]["timings"]["passes"]
