"""Grammars of replies: they take what a format's models write by the tools' schemas, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llguidance import LLMatcher
from written_replies import written

from maskprobe import MaskProbeLlama
from maskprobe.grammars.grammar import Grammar
from maskprobe.replies import FORMATS, Format
from maskprobe.replies.writing.calls import Function
from maskprobe.replies.writing.grammar import Wanted, reply_grammar
from maskprobe.replies.writing.rules import Rules

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "where": {"$ref": "#/$defs/place"},
    },
    "required": ["city"],
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "name": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "required": ["lat"],
        }
    },
}
TIME = {"type": "object", "properties": {}}
FUNCTIONS = [Function("get_weather", WEATHER, strict=True), Function("get_time", TIME, strict=True)]
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("get_weather", {"city": 'Zürich "Mitte" {[(', "days": 3, "exact": True, "tags": ["a, b", "c)"]}),
    ("get_time", {}),
    ("get_weather", {"city": "Oslo", "unit": "C", "where": {"lat": -47.5, "name": None}}),
]
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "name": ("get_whether", {"city": "Oslo"}),
    "missing": ("get_weather", {"days": 3}),
    "key": ("get_weather", {"city": "Oslo", "country": "Norway"}),
    "enum": ("get_weather", {"city": "Oslo", "unit": "K"}),
    "type": ("get_weather", {"city": "Oslo", "exact": 5}),
    "bound": ("get_weather", {"city": "Oslo", "days": 15}),
    "item": ("get_weather", {"city": "Oslo", "tags": [5]}),
    "reference": ("get_weather", {"city": "Oslo", "where": {"name": "home"}}),
}
# Kimi K3 names the type of every value, which the data alone do not say.
WITH_CALLS = [form for form in FORMATS.values() if form.calls and form.name != "kimi-k3"]


@pytest.fixture(scope="module")
def llm(load: Callable[[str], MaskProbeLlama]) -> MaskProbeLlama:
    return load("Q4_0")


def grammar_of(llm: MaskProbeLlama, form: Format, wanted: Wanted, **options: Any) -> Grammar:
    rules = Rules(llm.control_tokens.split, llm.engine.model.vocab.is_end, Grammar.from_schema)
    grammar = reply_grammar(form, wanted, rules, **{"thinks": False, "opened": None, **options})
    assert grammar is not None
    return grammar


def takes(llm: MaskProbeLlama, grammar: Grammar, text: str) -> bool:
    """Whether a grammar allows a text and its end."""
    matcher = grammar.matcher(llm.engine.model.vocab)
    assert isinstance(matcher, LLMatcher)
    tokens = llm.tokenize(text, add_bos=False)
    return bool(
        matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()
    )


@pytest.mark.parametrize("form", WITH_CALLS, ids=lambda form: form.name)
def test_calls_are_written_as_the_data_say(form: Format, llm: MaskProbeLlama) -> None:
    grammar = grammar_of(llm, form, Wanted(FUNCTIONS, must_call=True))
    assert not [written(form, [call]) for call in GOOD if not takes(llm, grammar, written(form, [call]))]
    assert takes(llm, grammar, written(form, GOOD)) or form.channels, "gpt-oss ends after a call"
    assert not [name for name, call in BAD.items() if takes(llm, grammar, written(form, [call]))]
    one = grammar_of(llm, form, Wanted(FUNCTIONS, must_call=True, parallel=False))
    assert takes(llm, one, written(form, GOOD[:1]))
    assert not takes(llm, one, written(form, GOOD))
