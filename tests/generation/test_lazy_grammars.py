"""Grammars that begin in the middle of a text, and control tokens that have text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from maskprobe import MaskProbeLlama
from maskprobe.grammars.grammar import Grammar
from maskprobe.grammars.lazy import LazyMatcher, Trigger, _Scanner

THINK = ("<think>", "</think>")


@pytest.fixture(scope="module")
def llm(load: Callable[[str], MaskProbeLlama]) -> MaskProbeLlama:
    return load("Q4_0")


@pytest.mark.parametrize(
    ("trigger", "text", "begins"),
    [
        (Trigger(("<call>",)), "a <call a <call>b", "<call>b"),
        (Trigger(("<call>", "<c")), "a <call>b", "<call>b"),
        (Trigger(("<call>",)), "<<call>", "<call>"),
        (Trigger(("<call>",), reasoning=THINK), "<think>a <call> b</think> <call>c", "<call>c"),
        (Trigger(("<call>",), reasoning=THINK, is_reasoning=True), "<call> b</think><call>c", "<call>c"),
        (Trigger(("<call>",), reasoning=THINK), "<think>a <call> b", None),
        (Trigger((), ('{"name"',)), ' \n{"name": "f"', '{"name": "f"'),
        (Trigger((), ('{"name"',)), 'So: {"name": "f"', None),
        (Trigger((), ('{"name"',), reasoning=THINK), '<think>a</think>\n{"name": 1', '{"name": 1'),
        (Trigger(("<call>",), ("[f(",)), "[g(<call>", "<call>"),
    ],
)
def test_a_trigger_is_found_however_the_text_comes(trigger: Trigger, text: str, begins: str | None) -> None:
    data = text.encode()
    expected = None if begins is None else len(data) - len(begins.encode())
    for size in range(1, len(data) + 1):
        scanner = _Scanner(trigger)
        found = (scanner.push(data[at : at + size]) for at in range(0, len(data), size))
        assert next((at for at in found if at is not None), None) == expected


def matcher_after(llm: MaskProbeLlama, grammar: Grammar, pieces: list[str]) -> LazyMatcher:
    """The matcher behind pieces that are one token each."""
    vocab = llm.engine.model.vocab
    matcher = grammar.matcher(vocab)
    assert isinstance(matcher, LazyMatcher)
    for piece in pieces:
        token = vocab.single_token(piece)
        assert token is not None
        matcher.consume_token(token)
    return matcher


def allowed(llm: MaskProbeLlama, matcher: LazyMatcher) -> set[str] | None:
    """The tokens that may come next, None = all."""
    mask = matcher.compute_bitmask()
    vocab = llm.engine.model.vocab
    if mask is None:
        return None
    return {
        vocab.piece(token, True).decode("utf-8", "replace")
        for token in range(vocab.n_tokens)
        if mask[token // 8] >> token % 8 & 1
    }


def test_a_grammar_begins_within_a_token(llm: MaskProbeLlama) -> None:
    grammar = Grammar('start: "ello" "!"\n', False, Trigger(("ello",)))
    matcher = matcher_after(llm, grammar, ["Say"])
    assert allowed(llm, matcher) is None
    matcher = matcher_after(llm, grammar, ["Say", " Hello"])
    assert allowed(llm, matcher) == {"!"}
    assert not matcher.is_accepting()
    assert not matcher.is_error()


def test_a_trigger_with_which_the_grammar_cannot_go_on_is_passed_over(llm: MaskProbeLlama) -> None:
    grammar = Grammar('start: "ell" "!"\n', False, Trigger(("ell",)))
    matcher = matcher_after(llm, grammar, [" Hello"])
    assert allowed(llm, matcher) is None
    matcher = matcher_after(llm, grammar, [" Hello", " tell"])
    assert allowed(llm, matcher) == {"!"}


def test_an_answer_is_free_up_to_the_trigger_and_the_same_with_drafts(llm: MaskProbeLlama) -> None:
    prompt = "The seven days of the week are: Monday,"
    free = llm.generate(prompt, temperature=0.0, max_tokens=30).text
    before, _, behind = free.partition(" Thursday")
    assert behind
    lark = 'start: " Thursday" /[ a-z]{5,40}/ "."\n'
    grammar = Grammar(lark, False, Trigger((" Thursday",)))
    for options in ({"temperature": 0.0}, {"temperature": 0.9, "seed": 3}, {"temperature": 0.9, "seed": 4}):
        answers = []
        for speculate in (False, True):
            llm.reset()
            answers.append(llm.generate(prompt, grammar=grammar, speculate=speculate, max_tokens=60, **options))
        assert answers[0].tokens == answers[1].tokens
        text = answers[0].text
        if " Thursday" in text:
            assert text.endswith(".") or answers[0].finish_reason == "length"
            assert set(text.partition(" Thursday")[2]) <= set(" abcdefghijklmnopqrstuvwxyz.")
        if options["temperature"] == 0.0:
            assert text.startswith(f"{before} Thursday")
            assert not text.endswith(behind)


def test_control_tokens_have_text_where_asked_for(llm: MaskProbeLlama) -> None:
    first, second = (llm.tokenize(f"<{name}>", add_bos=False)[0] for name in ("gh_stars", "file_sep"))
    grammar = f'root ::= "a" <[{first}]> "b" <[{second}]> "c"'
    texts = {False: "abc", True: "a<gh_stars>b<file_sep>c", frozenset({first}): "a<gh_stars>bc"}
    for special, text in texts.items():
        assert llm.generate("Hi", grammar=grammar, special=special, temperature=0.0).text == text
    stopped = llm.generate("Hi", grammar=grammar, special=True, stop="<file", temperature=0.0)
    assert (stopped.text, stopped.finish_reason) == ("a<gh_stars>b", "stop")
    with pytest.raises(TypeError, match="special"):
        llm.generate("Hi", special="all")  # type: ignore[arg-type]
