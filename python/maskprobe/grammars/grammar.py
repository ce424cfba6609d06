"""What an answer must look like: GBNF grammars and JSON schemas as a sampler of llama.cpp's chain, by llguidance.

Knows llguidance and its limits; leaves GBNF to gbnf.py, schemas to schemas.py, and the other samplers to sampling.py.
llama.cpp's own grammar sampler is not used: it ends the process on a token that it does not allow, and some short
grammars take it hours and gigabytes. Here every step has a limit.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from ..llamacpp.samplers import Accept, Apply, Ids, Logits, python_sampler
from ..llamacpp.vocabulary import Vocabulary
from . import gbnf
from .guide import Guide
from .lazy import LazyMatcher, Trigger
from .schemas import Schema, grammar_of_schema

# So that a token takes 0.2 s at most; what people write takes 1 ms.
_LIMITS = LLParserLimits(max_items_in_row=2000, step_max_items=500_000, step_lexer_fuel=500_000)
# A look ahead of the answer, of which a pass takes many, is given up after a tenth of that.
_LIMITS_AHEAD = LLParserLimits(max_items_in_row=2000, step_max_items=50_000, step_lexer_fuel=50_000)
# Any token that goes on is allowed, not only the one into which llama.cpp would split forced text.
_HEADER = '%llguidance {"no_forcing": true}\n'


@dataclass(frozen=True)
class Grammar:
    """A language that answers must be in."""

    source: str  # GBNF, or a grammar of llguidance's
    is_gbnf: bool
    trigger: Trigger | None = None  # where it begins, None = with the text

    @staticmethod
    def from_gbnf(text: str) -> Grammar:
        """By GBNF with a rule named root. It is read when it is compiled, as it may name tokens."""
        return Grammar(text, True)

    @staticmethod
    def from_schema(schema: Schema) -> Grammar:
        """JSON that follows a schema.

        Raises:
            ValueError, TypeError: it is no schema, or something in it cannot be enforced; the message names it.
        """
        return Grammar(grammar_of_schema(schema), False)

    def compile(self, vocab: Vocabulary) -> GrammarSampler:
        """The grammar as a sampler over a vocabulary.

        Raises:
            ValueError: it cannot be read, allows nothing, or asks for too much.
        """
        guide = Guide(lambda: self._from_trigger(self._begin(vocab, _LIMITS_AHEAD), vocab))
        return GrammarSampler(self.matcher(vocab), guide, vocab.n_tokens)

    def matcher(self, vocab: Vocabulary) -> LLMatcher | LazyMatcher:
        """What tells the tokens of a vocabulary that are allowed next, and raises what :meth:`compile` raises."""
        matcher = self._begin(vocab, _LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # the first one, so that what is too much is said before anything is decoded
        if matcher.is_error():
            raise ValueError(_first_line(matcher.get_error()))
        return self._from_trigger(matcher, vocab)

    def _begin(self, vocab: Vocabulary, limits: LLParserLimits) -> LLMatcher:
        text = gbnf.to_lark(self.source, vocab.single_token) if self.is_gbnf else self.source
        return LLMatcher(tokenizer_of(vocab), _HEADER + text, log_level=0, limits=limits)

    def _from_trigger(self, matcher: LLMatcher, vocab: Vocabulary) -> LLMatcher | LazyMatcher:
        return matcher if self.trigger is None else LazyMatcher(matcher, self.trigger, vocab)


class GrammarSampler:
    """A llama_sampler that lets through what a grammar allows. Keep it as long as the chain that has taken it over."""

    def __init__(self, matcher: LLMatcher | LazyMatcher, guide: Guide, n_tokens: int) -> None:
        self._matcher = matcher
        self.guide = guide
        self.handle, self._interface = python_sampler(*_functions(matcher, guide, n_tokens))

    def why_nothing(self) -> str:
        """Why it let nothing through."""
        if self._matcher.is_error():
            return f"the grammar cannot go on: {_first_line(self._matcher.get_error())}"
        if self._matcher.is_accepting():
            return "the grammar is complete, but no token that ends the text is left"
        return "the grammar allows no token that is left"


def _functions(matcher: LLMatcher | LazyMatcher, guide: Guide, n_tokens: int) -> tuple[Accept, Apply]:
    """The functions of the sampler. An error stays in the matcher."""

    def accept(token: int) -> None:
        matcher.consume_token(token)
        guide.go_on(token)

    def apply(ids: Ids, logits: Logits) -> None:
        allowed = np.zeros(n_tokens, bool)
        if not matcher.is_error():
            mask = matcher.compute_bitmask()
            if mask is None:
                return
            bits = np.frombuffer(mask, np.uint8)
            allowed = np.unpackbits(bits, count=n_tokens, bitorder="little").view(bool)
        logits[~allowed[ids]] = -np.inf

    return accept, apply


class _Tokens:
    """A vocabulary as llguidance's TokenizerWrapper wants it. Control tokens are no text."""

    def __init__(self, vocab: Vocabulary) -> None:
        self._vocab = weakref.ref(vocab)
        self.tokens = [vocab.piece(token) or vocab.piece(token, special=True) for token in range(vocab.n_tokens)]
        self.special_token_ids = [token for token, text in enumerate(self.tokens) if text and not vocab.piece(token)]
        self.bos_token_id = vocab.bos if vocab.bos >= 0 else None
        self.eos_token_id = vocab.eos if vocab.eos >= 0 else None

    def __call__(self, text: bytes) -> list[int]:
        vocab = self._vocab()
        return vocab.tokenize(text, False, False) if vocab is not None else []


_tokenizers: weakref.WeakKeyDictionary[Vocabulary, LLTokenizer] = weakref.WeakKeyDictionary()


def tokenizer_of(vocab: Vocabulary) -> LLTokenizer:
    """The vocabulary as llguidance knows it; made once, in a quarter of a second for 49,000 tokens."""
    if vocab not in _tokenizers:
        _tokenizers[vocab] = LLTokenizer(TokenizerWrapper(_Tokens(vocab)), eos_token=vocab.ends())
    return _tokenizers[vocab]


def _first_line(error: str) -> str:
    return error.strip().split("\n")[0]
