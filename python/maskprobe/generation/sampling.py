"""Sampler chains: the parameters and the llama.cpp chain they stand for.

The order of the chain is llama-cpp-python's, so equal parameters and seeds give equal text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from ..checking import checked_integer, checked_number, checked_seed
from ..grammars.grammar import Grammar, GrammarSampler
from ..llamacpp.installed import llama_cpp
from ..llamacpp.samplers import python_sampler
from ..llamacpp.vocabulary import Vocabulary
from .callbacks import Callback, Callbacks, checked_callbacks

_GREEDY = 1e-5  # temperatures below it choose the largest logit; dividing by them would overflow
_MIROSTAT_M = 100  # tokens that Mirostat 1 estimates from, as in llama-cpp-python


class Chain:
    """A llama_sampler chain, freed by :meth:`close` or with the object, also after the model.

    Without samplers it has no handle.
    """

    def __init__(self) -> None:
        self.handle: Any = None
        self.grammar: GrammarSampler | None = None  # that is among them
        self.callbacks: Callbacks | None = None  # likewise

    def add(self, sampler: Any) -> None:
        """Takes a sampler over as the last one."""
        if self.handle is None:
            self.handle = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        llama_cpp.llama_sampler_chain_add(self.handle, sampler)

    def call(self, callbacks: Callbacks) -> None:
        """Has the user's functions called by the next sampler."""
        self.callbacks = callbacks
        sampler, self._interface = python_sampler(callbacks.accept, callbacks.apply)
        self.add(sampler)

    def why_nothing(self) -> str:
        """Why it left no token to choose from."""
        if self.grammar is not None:
            return self.grammar.why_nothing()
        if self.callbacks is not None:
            return "the logits processors, or logit_bias, rule every token out"
        return "logit_bias rules every token out, or the model's logits are no numbers"

    def close(self) -> None:
        if self.handle is not None:
            llama_cpp.llama_sampler_free(self.handle)
            self.handle = None

    __del__ = close


class SamplingOptions(TypedDict, total=False):
    """Keyword arguments of :class:`Sampling`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_last_n: int
    mirostat_mode: int
    mirostat_tau: float
    mirostat_eta: float
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    grammar: str | Grammar | Any | None
    logits_processor: Callback | Sequence[Callback] | None
    stopping_criteria: Callback | Sequence[Callback] | None
    seed: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Sampling:
    """Validated sampling parameters, with llama-cpp-python's names and defaults; a temperature below 1e-5 is greedy.

    Args:
        temperature, top_k, top_p, min_p, typical_p: the usual ones.
        repeat_penalty, frequency_penalty, presence_penalty: over the last penalty_last_n generated tokens.
        mirostat_mode, mirostat_tau, mirostat_eta: 1 or 2 = Mirostat in place of top-k to temperature, 0 = off.
        logit_bias: added to the logits of token ids.
        grammar: GBNF text, a llama_cpp.LlamaGrammar or a :class:`~maskprobe.grammars.Grammar` that the output follows.
        logits_processor, stopping_criteria: functions, or lists of them, of the token ids so far, [n], the prompt's
            first, and of the logits of what follows, [n_vocab]. They are called once before every draw, whatever was
            drafted, and before all other samplers. Processors give the logits to go on with; where a criterion gives
            True, the text ends. What they raise ends the generation.
        seed: of the draws, 0..2^32-1; -1 = a random one.

    Raises:
        ValueError, TypeError: a value is out of range; the message names it.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: Mapping[int, float] | Mapping[str, float] | None = None
    grammar: str | Grammar | Any | None = None
    logits_processor: Callback | Sequence[Callback] | None = None
    stopping_criteria: Callback | Sequence[Callback] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        checked_number("temperature", self.temperature, 0.0)
        checked_integer("top_k", self.top_k, -(2**31), 2**31 - 1)
        for name in ("top_p", "min_p", "typical_p"):
            checked_number(name, getattr(self, name), 0.0, 1.0)
        checked_number("repeat_penalty", self.repeat_penalty, 0.0)
        if self.repeat_penalty == 0.0:
            raise ValueError("repeat_penalty must be above 0 (1.0 turns it off), got 0.0")
        for name in ("frequency_penalty", "presence_penalty"):
            checked_number(name, getattr(self, name), -(2.0**31), 2.0**31)
        checked_integer("penalty_last_n", self.penalty_last_n, 0, 2**31 - 1)
        checked_integer("mirostat_mode", self.mirostat_mode, 0, 2)
        checked_number("mirostat_tau", self.mirostat_tau, 0.0)
        checked_number("mirostat_eta", self.mirostat_eta, 0.0)
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        object.__setattr__(self, "grammar", _checked_grammar(self.grammar))
        seed = llama_cpp.LLAMA_DEFAULT_SEED if self.seed is None else self.seed
        object.__setattr__(self, "seed", checked_seed(seed))

    def chain(self, vocab: Vocabulary, prompt: Sequence[int] = ()) -> Chain:
        """A fresh chain for a model's vocabulary; one without samplers stands for the largest logit.

        Args:
            vocab: the vocabulary.
            prompt: the token ids that callbacks see first.

        Raises:
            ValueError: the vocabulary lacks a biased token, or the grammar cannot be read.
            TypeError: a callback is no function.
        """
        for token in self.logit_bias or ():
            if not 0 <= int(token) < vocab.n_tokens:
                raise ValueError(f"logit_bias names token {token}, but the vocabulary has {vocab.n_tokens} tokens")
        chain = Chain()
        if isinstance(self.grammar, Grammar):
            try:
                chain.grammar = self.grammar.compile(vocab)
            except ValueError as error:
                raise ValueError(f"the grammar cannot be used: {error}") from error
        processors = checked_callbacks("logits_processor", self.logits_processor)
        criteria = checked_callbacks("stopping_criteria", self.stopping_criteria)
        if processors or criteria:
            chain.call(Callbacks(processors, criteria, prompt))
        for sampler in self._samplers(vocab, chain):
            chain.add(sampler)
        return chain

    def _samplers(self, vocab: Vocabulary, chain: Chain) -> Iterator[Any]:
        greedy, grammar = self.temperature < _GREEDY, chain.grammar
        if greedy and self.logit_bias is None and grammar is None and chain.callbacks is None and not self._penalizes():
            return
        if self.logit_bias:
            biases = [llama_cpp.llama_logit_bias(int(token), bias) for token, bias in self.logit_bias.items()]
            array = (llama_cpp.llama_logit_bias * len(biases))(*biases)
            yield llama_cpp.llama_sampler_init_logit_bias(vocab.n_tokens, len(biases), array)
        if self._penalizes():
            penalties = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty)
            yield llama_cpp.llama_sampler_init_penalties(vocab.n_tokens, self.penalty_last_n, *penalties)
        if grammar is not None:
            yield grammar.handle
        if greedy:
            yield llama_cpp.llama_sampler_init_greedy()
        elif self.mirostat_mode == 1:
            yield llama_cpp.llama_sampler_init_mirostat(
                vocab.n_tokens, self.seed, self.mirostat_tau, self.mirostat_eta, _MIROSTAT_M
            )
        elif self.mirostat_mode == 2:
            yield llama_cpp.llama_sampler_init_mirostat_v2(self.seed, self.mirostat_tau, self.mirostat_eta)
        else:
            yield llama_cpp.llama_sampler_init_top_k(self.top_k)
            yield llama_cpp.llama_sampler_init_typical(self.typical_p, 1)
            yield llama_cpp.llama_sampler_init_top_p(self.top_p, 1)
            yield llama_cpp.llama_sampler_init_min_p(self.min_p, 1)
            yield llama_cpp.llama_sampler_init_temp(self.temperature)
            yield llama_cpp.llama_sampler_init_dist(self.seed)

    def _penalizes(self) -> bool:
        neutral = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty) == (1.0, 0.0, 0.0)
        return not neutral and self.penalty_last_n > 0


def _checked_bias(bias: object) -> dict[int, float] | None:
    if bias is None:
        return None
    if not isinstance(bias, Mapping):
        raise TypeError(f"logit_bias must map token ids to numbers, got {bias!r}")
    checked = {}
    for token, value in bias.items():
        try:
            token_id = int(token)
        except (TypeError, ValueError) as error:
            raise ValueError(f"logit_bias must map token ids to numbers, got the key {token!r}") from error
        # -inf bans a token, as in llama.cpp.
        checked[token_id] = -math.inf if value == -math.inf else checked_number("logit_bias", value, -1e9, 1e9)
    return checked


def _checked_grammar(grammar: object) -> Grammar | None:
    if grammar is None or isinstance(grammar, Grammar):
        return grammar
    text = grammar if isinstance(grammar, str) else getattr(grammar, "_grammar", None)
    if not isinstance(text, str):
        raise TypeError(f"grammar must be GBNF text or a llama_cpp.LlamaGrammar, got {type(grammar).__name__}")
    return Grammar.from_gbnf(text)
