"""GBNF by llguidance: the tokens that llama.cpp's own grammar sampler allows, and an end to whatever is asked."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from made_grammars import ENDLESS, a_grammar

from maskprobe import MaskProbeLlama, SamplingError
from maskprobe.grammars import gbnf
from maskprobe.grammars.grammar import Grammar
from maskprobe.llamacpp.vocabulary import Vocabulary

JSON = llama_cpp.llama_grammar.JSON_GBNF


@pytest.fixture(scope="module")
def llm(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=512, n_threads=1) as llm:
        yield llm


@pytest.fixture(scope="module")
def vocab(llm: MaskProbeLlama) -> Vocabulary:
    return llm.engine.model.vocab


def allowed_by(sampler: object, n: int) -> np.ndarray:
    """The tokens that a sampler leaves, [n] flags."""
    data = (llama_cpp.llama_token_data * n)()
    for token in range(n):
        data[token].id = token
    array = llama_cpp.llama_token_data_array(data=data, size=n, selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    return np.isfinite([entry.logit for entry in data])


def is_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def walk(grammar: str, vocab: Vocabulary, seed: int, n_steps: int) -> None:
    """Holds our sampler to llama.cpp's along a random text."""
    rng = random.Random(seed)
    ours = Grammar.from_gbnf(grammar).compile(vocab)
    stock = llama_cpp.llama_sampler_init_grammar(vocab.handle, grammar.encode(), b"root")
    ends = vocab.ends()
    # Control tokens are no text here; in the middle of a character llama.cpp allows an end, and other bytes than go on.
    comparable = [t for t in range(vocab.n_tokens) if t in ends or (vocab.piece(t) and is_text(vocab.piece(t)))]
    for _ in range(n_steps):
        found, expected = (allowed_by(sampler, vocab.n_tokens) for sampler in (ours.handle, stock))
        different = [token for token in comparable if found[token] != expected[token] and vocab.piece(token) != b"\0"]
        assert different == [], [vocab.piece(token) for token in different[:5]]
        going_on = [token for token in comparable if found[token] and token not in ends]
        if not going_on:
            break
        token = rng.choice(going_on)
        llama_cpp.llama_sampler_accept(stock, token)
        llama_cpp.llama_sampler_accept(ours.handle, token)
    llama_cpp.llama_sampler_free(stock)
    llama_cpp.llama_sampler_free(ours.handle)


GRAMMARS = {
    "json": JSON,
    "greedy": 'root ::= [a-z]* "foo" | "é" [^a]* "ü"?',
    "repeats": 'root ::= ("ab" | "a" | "b"){2,5} [0-9]{3} "x"* "y"+ "z"{2,}',
    "characters": 'root ::= [ぁ-んァ-ヶ一-龠]+ . "\\u00e9\\x41\\U0001F600"',
    "classes": 'root ::= [^"\\\\\\n\\x00-\\x1f] [a\\-z\\]-] [^\\]] "\\"\\\\\\t"',
    "nested": 'root ::= "(" root? ")" | "[" (root ",")* "]" | ""',
    "at its end": 'root ::= [a-z ] root | "."',
    "at an optional end": 'root ::= "x" ws "y"\nws ::= ([ \\t\\n] ws)?',
    "at several ends": 'root ::= s\ns ::= "a" ("b" s | "c" s? | "d")',
    "comments": "root ::= # here\n  a | # and\n  ( b\n | a )\na ::= \"a\" # there\n\n\nb\t::= 'x'?\n".replace("'", '"'),
    "twice": 'root ::= "a"\nroot ::= "b"',
    "dead branch": 'root ::= "a" | b\nb ::= "b" b',
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_the_tokens_are_llama_cpps(name: str, vocab: Vocabulary) -> None:
    for seed in range(2):
        walk(GRAMMARS[name], vocab, seed, 10)


@pytest.mark.parametrize("seed", range(12))
def test_made_grammars_allow_what_llama_cpp_allows(seed: int, vocab: Vocabulary) -> None:
    walk(a_grammar(random.Random(seed)), vocab, seed, 6)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "no rule named root"),
        ("x ::= 'a'".replace("'", '"'), "no rule named root"),
        ("root ::= [z-b]", r"line 1: no character is in this class, found '\[z-b\]'"),
        ("root ::= []", "no character"),
        ("root ::= [^\\x00-\\U0010FFFF]", "no character"),
        ('root ::= "\\uD800"', "this is no character"),
        ('root ::= "\\U00110000"', "this is no character"),
        ('root ::= "a\0"', "this is no character"),
        ('root ::= "a"{2,1}', "at least 2 and at most 1"),
        ('root ::= "a"{2001}', "2000 repetitions"),
        ('root ::= "a"{99999999999999999999}', "2000 repetitions"),
        ('root ::= "a"{}', "a number"),
        ('root ::= "a"{1', "expected }"),
        ('root ::=\n  "a', "line 2: expected the closing quote"),
        ("root ::= [a", "closing quote or bracket"),
        ('root ::= ("a"', r"expected \)"),
        ('root ::= "a")', "expected a newline"),
        ("root ::= *", "expected a newline"),
        ('root = "a"', "expected ::="),
        ('::= "a"', "the name of a rule"),
        ('root ::= "\\q"', "escapes"),
        ("root ::= a | b\na ::= root", "no rule named b"),
        ("root ::= " + "(" * 200 + '"a"' + ")" * 200, "150 deep"),
        ("root ::= <no-token-of-this-model>", "no single token"),
        ('root ::= "a"' + " " * 70000, "65536 are the most"),
        ("root ::= root", "."),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_grammar_is_refused(grammar: str, message: str, llm: MaskProbeLlama) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        llm.generate("Hi", max_tokens=4, grammar=grammar)
    assert str(caught.value).startswith("the grammar cannot be used: ")
    assert "\n" not in str(caught.value)
    assert len(llm.generate("Hi", max_tokens=2).tokens) == 2


# Each of these takes llama.cpp's sampler seconds to hours, or gigabytes.
@pytest.mark.parametrize("body", ENDLESS, ids=lambda body: body[:24])
def test_no_grammar_is_endless(body: str, vocab: Vocabulary) -> None:
    try:
        sampler = Grammar.from_gbnf(f"root ::= {body}").compile(vocab)
    except ValueError:
        return
    for token in vocab.tokenize(b"aaaabbcabbbb", False, False):
        llama_cpp.llama_sampler_accept(sampler.handle, token)
        allowed_by(sampler.handle, vocab.n_tokens)
    llama_cpp.llama_sampler_free(sampler.handle)


def test_a_grammar_that_fails_on_its_way_says_so(llm: MaskProbeLlama) -> None:
    """The limit is met after some tokens; what it then allows is nothing."""
    with pytest.raises(SamplingError, match=r"grammar cannot go on: .*Current row has"):
        llm.generate("Hi", max_tokens=400, temperature=0.0, grammar='root ::= ("a" (("a"?){1000}){1000})+')
    assert len(llm.generate("Hi", max_tokens=2).tokens) == 2


def test_tokens_by_name_and_number(llm: MaskProbeLlama, vocab: Vocabulary) -> None:
    named = llm.generate("Hi", max_tokens=4, temperature=0.0, grammar='root ::= "a" <|im_start|> "b"')
    assert named.tokens == [*vocab.tokenize(b"a", False, False), 1, *vocab.tokenize(b"b", False, False)]
    [letter] = vocab.tokenize(b"x", False, False)
    numbered = llm.generate("Hi", max_tokens=2, temperature=0.0, grammar=f"root ::= <[{letter}]> !<[{letter}]>")
    assert numbered.tokens[0] == letter
    assert numbered.tokens[1] != letter


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_ban_on_all_that_a_grammar_allows(temperature: float, llm: MaskProbeLlama, vocab: Vocabulary) -> None:
    [yes] = vocab.tokenize(b"yes", False, False)
    starts = [token for token in range(vocab.n_tokens) if b"yes".startswith(vocab.piece(token) or b"-")]
    bans = dict.fromkeys([yes, *starts], -float("inf"))
    with pytest.raises(SamplingError, match="the grammar allows no token that is left"):
        llm.generate("Hi", max_tokens=4, temperature=temperature, grammar='root ::= "yes"', logit_bias=bans)
    assert len(llm.generate("Hi", max_tokens=2).tokens) == 2


def test_a_ban_on_everything(llm: MaskProbeLlama) -> None:
    bans = dict.fromkeys(range(llm.n_vocab()), -float("inf"))
    with pytest.raises(SamplingError, match="logit_bias rules every token out"):
        llm.generate("Hi", max_tokens=4, temperature=0.0, logit_bias=bans)
    assert len(llm.generate("Hi", max_tokens=2).tokens) == 2


def test_long_texts_cost_as_much_as_short_ones(vocab: Vocabulary) -> None:
    """A rule that calls itself at its end must not keep all of its calls."""
    sampler = Grammar.from_gbnf('root ::= [a-z ] root | "."').compile(vocab)
    for _ in range(3000):
        llama_cpp.llama_sampler_accept(sampler.handle, vocab.tokenize(b"abc", False, False)[0])
    assert allowed_by(sampler.handle, vocab.n_tokens).sum() > 1000
    llama_cpp.llama_sampler_free(sampler.handle)


def test_the_notation_is_written_as_llguidance_reads_it() -> None:
    b, not_a = r"/[\x{62}-\x{62}]/", r"/[\x{1}-\x{60}\x{62}-\x{10ffff}]/"
    text = gbnf.to_lark('root ::= x{2} ("b"){3}? | "" \nx ::= "b" x | [^a]', lambda _: None)
    assert text.splitlines() == [
        f"g1: {b}",
        "g2: g1",
        "g3: g2{3,3}",
        'g4: ""',
        "start: r1{2,2} g3{0,1} | g4",
        f"g5: {b}",
        "g6: g5",
        f"g7: {not_a}",
        "r1: g6{0,} g7",
    ]


def test_samplers_are_freed_with_their_chain(vocab: Vocabulary) -> None:
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        sampler = Grammar.from_gbnf(JSON).compile(vocab)
        gone = weakref.ref(sampler)
        llama_cpp.llama_sampler_free(sampler.handle)
        del sampler
        assert gone() is None, "a cycle keeps the grammar until the collector comes"
    finally:
        gc.enable()
