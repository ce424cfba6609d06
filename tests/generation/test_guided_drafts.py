"""Drafts under a grammar: none that it forbids, its fixed text for free, and answers that stay the model's own."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLParserLimits

from maskprobe import MaskProbeLlama, Speculation
from maskprobe.grammars.grammar import Grammar, tokenizer_of
from maskprobe.grammars.guide import Guide
from maskprobe.grammars.lazy import Trigger
from maskprobe.llamacpp.vocabulary import Vocabulary

NAMES = ("first_name", "age", "email_address", "is_married", "favorite_color", "home_city", "tags", "pet")
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email_address": {"type": "string", "maxLength": 20},
        "is_married": {"type": "boolean"},
        "favorite_color": {"enum": ["red", "green", "blue"]},
        "home_city": {"type": "string", "maxLength": 12},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
        "pet": {"type": "object", "properties": {"kind": {"const": "an old parrot"}}, "required": ["kind"]},
    },
    "required": list(NAMES),
}
FIXED = {"const": {"disclaimer": "This text is the same in every answer, whoever asks for it.", "version": 20260101}}
STEPS = r"""
root ::= ("Step " [1-9] ": " [a-z ]{3,30} ".\n"){3} "All steps are done, good luck!"
"""
GRAMMARS = {
    "a schema": Grammar.from_schema(PERSON),
    "fixed text": Grammar.from_schema(FIXED),
    "GBNF": Grammar.from_gbnf(STEPS),
}
SETTINGS = {
    "mixed, 8 rows": Speculation(budget=8),
    "mixed, no masks": Speculation(budget=16, masks=0),
    "static": Speculation(masks=2, tree=(6, 2)),
    "dynamic": Speculation(masks=2, tree="dynamic", block=30),
}
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.9, "seed": 5},
    "penalties": {"temperature": 0.7, "seed": 3, "repeat_penalty": 1.2},
}


@pytest.fixture(scope="module")
def vocab(llm: MaskProbeLlama) -> Vocabulary:
    return llm.engine.model.vocab


@pytest.fixture
def prompt(llm: MaskProbeLlama) -> list[int]:
    llm.reset(learned=True)
    return llm.apply_chat_template([{"role": "user", "content": "Invent a person. Answer in JSON."}])


def answer(llm: MaskProbeLlama, prompt: list[int], grammar: Grammar, **options: Any) -> Any:
    return llm.generate(prompt, grammar=grammar, **{"max_tokens": 90, "temperature": 0.0, **options})


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grammar", "sampling"),
    [("a schema", "greedy"), ("a schema", "sampled"), ("fixed text", "sampled"), ("GBNF", "penalties")],
)
def test_answers_are_plain_decodings(grammar: str, sampling: str, llm: MaskProbeLlama, prompt: list[int]) -> None:
    options = SAMPLING[sampling]
    plain = answer(llm, prompt, GRAMMARS[grammar], speculate=False, **options)
    for name, speculation in [*SETTINGS.items(), *SETTINGS.items()]:  # the second time with what has been taught
        out = answer(llm, prompt, GRAMMARS[grammar], speculate=speculation, **options)
        assert (name, out.tokens, out.finish_reason) == (name, plain.tokens, plain.finish_reason)


def test_fixed_text_comes_for_free(llm: MaskProbeLlama, prompt: list[int]) -> None:
    first, second = (answer(llm, prompt, GRAMMARS["fixed text"], speculate=Speculation(budget=8)) for _ in range(2))
    assert json.loads(first.text) == json.loads(second.text) == FIXED["const"]
    # This model splits text that it would not have written itself as nobody foresees; then it is known.
    assert first.stats.acceptance_length > 1.8
    assert second.stats.acceptance_length > 4


def test_keys_are_drafted_in_a_first_answer(
    llm: MaskProbeLlama, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"speculate": SETTINGS["mixed, 8 rows"], "max_tokens": 200}
    guided, again = (answer(llm, prompt, GRAMMARS["a schema"], **options) for _ in range(2))
    llm.reset(learned=True)
    monkeypatch.setattr(Guide, "allowed", lambda *_: None)
    unguided = answer(llm, prompt, GRAMMARS["a schema"], **options)
    assert guided.tokens == again.tokens == unguided.tokens
    assert list(json.loads(guided.text)) == list(NAMES)
    assert guided.stats.acceptance_length > 1.2 * unguided.stats.acceptance_length
    assert guided.stats.draft_n < unguided.stats.draft_n
    assert again.stats.acceptance_length > guided.stats.acceptance_length


# --- failures -------------------------------------------------------------------------------------------


def test_a_guide_that_fails_costs_no_token(
    llm: MaskProbeLlama, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = answer(llm, prompt, GRAMMARS["a schema"], speculate=False)
    steps = LLParserLimits(step_max_items=40)  # too few for some of its places
    monkeypatch.setattr("maskprobe.grammars.grammar._LIMITS_AHEAD", steps)
    failed = []
    allowed = Guide.allowed

    def watched(self: Guide, drafted: list[int]) -> Any:
        failed.append(allowed(self, drafted))
        return failed[-1]

    monkeypatch.setattr(Guide, "allowed", watched)
    out = answer(llm, prompt, GRAMMARS["a schema"], speculate=SETTINGS["mixed, 8 rows"])
    assert out.tokens == plain.tokens
    assert None in failed
    assert any(failed)


def test_an_interrupt_while_looking_ahead_is_not_lost(
    llm: MaskProbeLlama, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Guide, "allowed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            answer(llm, prompt, GRAMMARS["a schema"], speculate=SETTINGS["mixed, 8 rows"])
    out = answer(llm, prompt, GRAMMARS["fixed text"], speculate=SETTINGS["mixed, 8 rows"])
    assert json.loads(out.text) == FIXED["const"]


# --- the guide ------------------------------------------------------------------------------------------


def flags(bits: bytes, n: int) -> list[int]:
    return [int(t) for t in np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[:n])]


@pytest.mark.parametrize("name", GRAMMARS)
def test_what_is_foreseen_is_what_the_matcher_allows(name: str, vocab: Vocabulary) -> None:
    rng, ends = random.Random(7), set(vocab.ends())
    matcher = GRAMMARS[name].matcher(vocab)
    guide = Guide(lambda: GRAMMARS[name].matcher(vocab))
    for _ in range(60):
        ahead = matcher.deep_copy()
        drafted: list[int] = []
        for _ in range(4):
            found = guide.allowed(drafted)
            assert found is not None
            assert found[0] == ahead.compute_bitmask()
            allowed = flags(found[0], vocab.n_tokens)
            assert found[1] is None or found[1] in allowed
            if set(allowed) <= ends:
                break
            token = rng.choice([t for t in allowed if t not in ends])
            drafted.append(found[1] if found[1] is not None and rng.random() < 0.5 else token)
            assert ahead.consume_token(drafted[-1])
        if not drafted:
            assert guide.allowed([vocab.eos]) is None
            return
        assert matcher.consume_token(drafted[0])
        guide.go_on(drafted[0])


def test_forced_text_is_foreseen_in_the_models_tokens(vocab: Vocabulary) -> None:
    guide = Guide(lambda: GRAMMARS["a schema"].matcher(vocab))
    tokens = vocab.tokenize(b'{"first_name": "Ann", "age": 4, "email_address', False, False)
    foreseen = []
    for i in range(len(tokens)):
        found = guide.allowed(tokens[:i])
        assert found is not None
        foreseen.append(found[1])
    assert [vocab.piece(t) for t in foreseen if t is not None] == [
        b"first",
        b"_",
        b"name",
        b"age",
        b"email",
        b"_",
        b"address",
    ]
    assert all(mine in (None, token) for mine, token in zip(foreseen, tokens, strict=True))


def test_a_forbidden_draft_leaves_the_guide_as_it_was(vocab: Vocabulary) -> None:
    guide = Guide(lambda: GRAMMARS["fixed text"].matcher(vocab))
    tokens = vocab.tokenize(json.dumps(FIXED["const"]).encode(), False, False)
    before = guide.allowed(tokens[:3])
    forbidden = vocab.tokenize(b"]", False, False)
    assert guide.allowed([*tokens[:2], *forbidden, *tokens[:2]]) is None
    assert guide.allowed(tokens[:3]) == before
    guide.go_on(tokens[0])
    assert guide.allowed(tokens[1:3]) == before


def test_nothing_is_known_before_a_grammar_begins(vocab: Vocabulary) -> None:
    grammar = dataclasses.replace(GRAMMARS["fixed text"], trigger=Trigger(('{"',)))
    guide = grammar.compile(vocab).guide
    tokens = vocab.tokenize(b'Here: {"disclaimer": "This', False, False)
    pieces = [vocab.piece(token) for token in tokens]
    begins = next(i for i, piece in enumerate(pieces) if b'{"' in piece)
    for i, token in enumerate(tokens):
        found = guide.allowed([])
        assert (found is not None) == (i > begins)
        if found is not None:
            assert token in flags(found[0], vocab.n_tokens)
            assert token in (found[1], token if found[1] is None else None)
        guide.go_on(token)


def test_calls_are_plain_decodings_too(llm: MaskProbeLlama) -> None:
    tools = [
        {"type": "function", "function": {"name": "find_a_restaurant_nearby", "parameters": PERSON}},
        {"type": "function", "function": {"name": "play", "parameters": FIXED}},
    ]
    answers = []
    for speculate in (False, True, True):
        llm.reset(learned=not answers)
        answer = llm.create_chat_completion(
            [{"role": "user", "content": "Find a place to eat for Ann, who is 41."}],
            tools=tools,
            tool_choice={"type": "function", "function": {"name": "find_a_restaurant_nearby"}},
            max_tokens=200,
            temperature=0.0,
            speculate=Speculation(budget=8) if speculate else False,
        )
        answers.append(answer["choices"][0]["message"])
        acceptance = answer["timings"]["acceptance_length"]
        assert (acceptance > 1.8) == speculate
    for answer in answers:
        for call in answer["tool_calls"]:
            del call["id"]
    assert answers[0] == answers[1] == answers[2]


def test_a_guide_without_a_grammar_knows_nothing(vocab: Vocabulary) -> None:
    guide = Guide(lambda: LLMatcher(tokenizer_of(vocab), "start: (", log_level=0))
    assert guide.allowed([]) is None
    guide.go_on(5)
    assert guide.allowed([6]) is None
