"""JSON schemas: what comes out follows them, or they are refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange_texts import STRANGE

from maskprobe import MaskProbeLlama
from maskprobe.grammars.grammar import Grammar
from maskprobe.grammars.schemas import grammar_of_schema
from maskprobe.llamacpp.vocabulary import Vocabulary

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["value", "children"],
        }
    },
    "$ref": "#/$defs/Node",
}


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=1024, n_threads=1) as llm:
        yield llm


@pytest.fixture(scope="module")
def vocab(llm: MaskProbeLlama) -> Vocabulary:
    return llm.engine.model.vocab


def random_text(schema: Any, vocab: Vocabulary, seed: int, n: int = 400) -> str | None:
    """A text of random tokens that the grammar allows, None if it found no end."""
    rng = random.Random(seed)
    matcher = Grammar.from_schema(schema).matcher(vocab)
    ends = set(vocab.ends())
    closing = [token for token in range(vocab.n_tokens) if vocab.piece(token) in (b'"', b"}", b"]", b",", b":", b"1")]
    text = b""
    for _ in range(n):
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        assert not matcher.is_error(), matcher.get_error()
        allowed = np.flatnonzero(bits[: vocab.n_tokens])
        if matcher.is_accepting() and (rng.random() < 0.3 or set(allowed) <= ends):
            return text.decode()
        good = [token for token in closing if bits[token]]
        going_on = [token for token in allowed if int(token) not in ends]
        token = int(rng.choice(good if good and rng.random() < 0.6 else going_on))
        assert matcher.consume_token(token)
        text += vocab.piece(token)
    return None


SCHEMAS: dict[str, Any] = {
    "anything": True,
    "anything too": {},
    "described": {"description": "whatever you like", "title": "x", "examples": [1]},
    "a tree": TREE,
    "itself": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
    "patterns": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}, "maxItems": 3},
    "a pattern within": {"type": "string", "pattern": "abc"},
    "a long pattern": {"type": "string", "pattern": "^([a-z]* ?){0,30}$"},
    "no items": {"type": "array", "items": False},
    "a tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    "bounds": {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
    "fractions": {"type": "number", "minimum": 0.5, "maximum": 2.25},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 1},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 5},
    "some items": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 4},
    "may repeat": {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": False, "maxItems": 4},
    "a map": {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1, "maxProperties": 3},
    "named by a pattern": {"type": "object", "patternProperties": {"^x[0-9]$": {"type": "null"}}},
    "one of": {"oneOf": [{"type": "integer"}, {"type": "object", "properties": {"a": {"const": 1}}}]},
    "all of": {"allOf": [{"properties": {"a": {"type": "null"}}}, {"required": ["a"], "type": "object"}]},
    "a format of one's own": {"type": "string", "format": "password", "maxLength": 4},
    "a date": {"type": "string", "format": "date"},
    "properties called as keywords": {
        "type": "object",
        "properties": {"format": {"type": "string", "format": "x", "maxLength": 2}, "uniqueItems": {"const": False}},
        "required": ["format", "uniqueItems"],
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_text_follows_its_schema(name: str, vocab: Vocabulary) -> None:
    texts = [random_text(SCHEMAS[name], vocab, seed) for seed in range(6)]
    ended = [text for text in texts if text is not None]
    assert ended or name == "a pattern within", texts
    for text in ended:
        jsonschema.Draft202012Validator(SCHEMAS[name]).validate(json.loads(text))


@pytest.mark.parametrize("text", STRANGE, ids=ascii)
def test_every_text_can_be_a_value_and_a_name(text: str, llm: MaskProbeLlama) -> None:
    for schema in (
        {"const": text},
        {"enum": [text]},
        {"const": {text: [text]}},
        {"type": "object", "properties": {text: {"const": 1}}, "required": [text]},
    ):
        answer = llm.create_chat_completion(
            [{"role": "user", "content": "Hi"}], response_format={"type": "json_object", "schema": schema}
        )
        found = json.loads(answer["choices"][0]["message"]["content"])
        jsonschema.validate(found, schema)
        assert text in json.dumps(found, ensure_ascii=False) or json.dumps(text)[1:-1] in json.dumps(found)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, '"not"'),
        ({"if": {"type": "string"}, "then": {"maxLength": 3}}, '"if", "then"'),
        ({"type": "array", "contains": {"type": "string"}}, "contains"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, '"not"'),
        ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "oneOf"),
        ({"type": "string", "pattern": "^[z-b]$"}, "invalid character class range"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "["}, "unclosed character class"),
        ({"type": "strin"}, "strin"),
        ({"type": "number", "exclusiveMinimum": True}, "exclusiveMinimum must be a number"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum"),
        ({"type": "array", "minItems": 3, "maxItems": 1}, "minItems"),
        ({"$ref": "https://example.org/schema.json"}, "https://example.org/schema.json"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"enum": []}, "empty"),
        ({"minimum": float("nan")}, "JSON"),
        ({"const": {1, 2}}, "JSON"),
        (False, "allows nothing"),
        ({"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"$ref": "#"}, "nothing|NoExtension"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_enforced_is_named(schema: Any, message: str, llm: MaskProbeLlama) -> None:
    for options in (
        {"response_format": {"type": "json_object", "schema": schema}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    ):
        if schema is False and "tools" in options:
            continue  # a function without parameters
        with pytest.raises(ValueError, match=message) as caught:
            llm.create_chat_completion([{"role": "user", "content": "Hi"}], **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", [5, None, "x", [], [{}]])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(TypeError, match="JSON schema is an object"):
        grammar_of_schema(schema)


def test_a_deep_schema_is_refused() -> None:
    schema: Any = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(ValueError, match=r"nested too deeply|recursion limit"):
        grammar_of_schema(schema)
    schema = {}
    for _ in range(300):
        schema = {"items": schema}
    with pytest.raises(ValueError, match="recursion limit"):
        grammar_of_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "minItems": 10**6, "maxItems": 10**6},
        {
            "type": "array",
            "maxItems": 10**4,
            "items": {"type": "array", "maxItems": 10**4, "items": {"maxItems": 10**6}},
        },
        {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"},
        {"type": "string", "pattern": "(a|b)*a(a|b){30}c"},
        {"type": "string", "pattern": "(x+x+)+y"},
        {"enum": ["x" * 50 + str(i) for i in range(5000)]},
        {"allOf": [{"anyOf": [{"required": [f"p{i}"]}, {"required": [f"q{i}"]}]} for i in range(12)]},
        {
            "$defs": {
                **{
                    f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
                    for i in range(25)
                },
                "d25": {"type": "object"},
            },
            "$ref": "#/$defs/d0",
        },
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_no_schema_is_endless(schema: Any, vocab: Vocabulary) -> None:
    try:
        Grammar.from_schema(schema).compile(vocab)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message


# --- schemas by the dozen -------------------------------------------------------------------------------

# This vocabulary has no tokens for the bytes of the rarest characters.
names = st.text(st.characters(codec="utf-8", max_codepoint=0xD7FF) | st.just("😀"), max_size=5)
small = st.integers(0, 3)
leaves = st.one_of(
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, True, {"type": ["string", "null"], "maxLength": 3}]),
    st.builds(lambda low, n: {"type": "integer", "minimum": low, "maximum": low + n}, st.integers(-99, 99), small),
    st.builds(lambda low, n: {"type": "string", "minLength": low, "maxLength": low + n}, small, small),
    st.builds(lambda values: {"enum": values}, st.lists(st.one_of(names, st.integers(-9, 9)), min_size=1, max_size=3)),
    st.builds(lambda value: {"const": value}, st.one_of(names, st.none(), st.booleans(), st.lists(small, max_size=2))),
)


def containers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def an_object(properties: dict[str, Any], required: bool, others: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = list(properties)
        return schema if others is None else schema | {"additionalProperties": others}

    return st.one_of(
        st.builds(an_object, st.dictionaries(names, parts, max_size=3), st.booleans(), st.sampled_from([None, False])),
        st.builds(lambda part, n: {"type": "array", "items": part, "maxItems": n}, parts, small),
        st.builds(lambda some: {"anyOf": some}, st.lists(parts, min_size=1, max_size=3)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=st.recursive(leaves, containers, max_leaves=6), seed=st.integers(0, 99))
def test_texts_of_made_schemas_follow_them(schema: Any, seed: int, vocab: Vocabulary) -> None:
    text = random_text(schema, vocab, seed, n=150)
    if text is not None:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
