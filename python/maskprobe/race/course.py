"""One prompt's race: both answers with the time of every token. Each runner has the machine for itself."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from ..llama import MaskProbeLlama
from .stock import Stock

Prompts = Sequence[tuple[str, list[int]]]  # names and token ids


@dataclass(frozen=True)
class Step:
    """A token of an answer: its text, when it was there (ms after the first), and whether it was drafted."""

    token: int
    text: str
    ms: float
    drafted: bool = False


@dataclass
class Answer:
    """An answer as far as it is there."""

    steps: list[Step] = field(default_factory=list)
    passes: int = 0  # so far
    n_ends: int = 0  # 1 with the token that ended it, which has no text
    done: bool = False

    def until(self, ms: float) -> Answer:
        """What was there after so many milliseconds."""
        steps = [step for step in self.steps if step.ms <= ms]
        done = self.done and len(steps) == len(self.steps)
        return Answer(steps, sum(not step.drafted for step in steps[1:]), done)

    @property
    def tokens(self) -> list[int]:
        return [step.token for step in self.steps]

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.steps)

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first, which the prompt's own pass gives."""
        ms = self.steps[-1].ms if self.steps else 0.0
        return 1e3 * (len(self.steps) - 1) / ms if ms else 0.0

    @property
    def tokens_per_pass(self) -> float:
        return (len(self.steps) + self.n_ends - 1) / self.passes if self.passes else 1.0


@dataclass
class Race:
    """Both answers to a prompt."""

    name: str
    stock: Answer = field(default_factory=Answer)
    ours: Answer = field(default_factory=Answer)
    gap: float = 0.0  # between stock's two best logits where the answers part

    @property
    def ratio(self) -> float:
        """Our speed as a multiple of stock's."""
        return self.ours.tokens_per_second / self.stock.tokens_per_second if self.stock.tokens_per_second else 0.0

    @property
    def parts_at(self) -> int | None:
        """Index of the first token that differs, None if the answers are equal."""
        if self.stock.tokens == self.ours.tokens:
            return None
        pairs = zip(self.stock.tokens, self.ours.tokens, strict=False)
        shorter = min(len(self.stock.tokens), len(self.ours.tokens))
        return next((i for i, (theirs, ours) in enumerate(pairs) if theirs != ours), shorter)

    def as_dict(self) -> dict[str, Any]:
        """The figures and texts, ready for JSON."""
        runners = {
            name: {
                "text": answer.text,
                "tokens": len(answer.steps),
                "passes": answer.passes,
                "ms": answer.steps[-1].ms,
                "tokens_per_second": answer.tokens_per_second,
                "tokens_per_pass": answer.tokens_per_pass,
            }
            for name, answer in (("stock", self.stock), ("maskprobe", self.ours))
        }
        return {"prompt": self.name, **runners, "ratio": self.ratio, "parts_at": self.parts_at, "gap": self.gap}


def run(
    llm: MaskProbeLlama, stock: Stock, prompts: Prompts, max_tokens: int, begin: Callable[[Race], None]
) -> Iterator[Race]:
    """The races, each when it is over.

    Args:
        begin: is given each race before it starts; the race fills meanwhile.
    """
    for _ in stock.answer(prompts[0][1], 4):  # neither runner's first passes count
        pass
    llm.generate(prompts[0][1], max_tokens=4, temperature=0.0)
    for name, ids in prompts:
        race = Race(name)
        begin(race)
        _let_stock_run(llm, stock, ids, max_tokens, race.stock)
        _let_ours_run(llm, ids, max_tokens, race.ours)
        if (at := race.parts_at) is not None:
            race.gap = stock.gap(ids + race.stock.tokens[:at])
        yield race


def _let_stock_run(llm: MaskProbeLlama, stock: Stock, ids: list[int], max_tokens: int, answer: Answer) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token, ms in stock.answer(ids, max_tokens):
        answer.passes = len(answer.steps)
        answer.steps.append(Step(token, decoder.decode(llm.piece(token)), ms))
    answer.done = True


def _let_ours_run(llm: MaskProbeLlama, ids: list[int], max_tokens: int, answer: Answer) -> None:
    start = None
    options: Any = {"max_tokens": max_tokens, "temperature": 0.0, "cache_prompt": False}
    with closing(llm.stream(ids, **options)) as stream:
        for chunk in stream:
            now = time.perf_counter()
            start = now if start is None else start
            for token in chunk.tokens:
                answer.steps.append(Step(token, chunk.text, 1e3 * (now - start), chunk.from_draft))
                answer.passes += not chunk.from_draft and len(answer.steps) > 1
            if chunk.stats is not None:
                answer.passes = chunk.stats.passes
                answer.n_ends = chunk.stats.predicted_n - len(answer.steps)
                answer.steps[-1] = replace(answer.steps[-1], text=answer.steps[-1].text + chunk.text)  # was held back
    answer.done = True
