"""The grammar of a reply: what it may be, calls or JSON, and where that begins.

Knows where reasoning stands round it; leaves calls to calls.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...grammars.grammar import Grammar
from ...grammars.lazy import Trigger
from ...grammars.schemas import Schema
from ..formats import Format
from ..notations import Calls, JsonObject, NamedJson, Pythonic, Tagged, Tags
from .calls import Function, written_calls
from .rules import Rules

# How a model is made to call whose template shows no way.
_GENERIC = Calls(JsonObject(arguments=("arguments",)), bare=True)
# gpt-oss: the headers of messages that think and answer.
CHANNELS = Tags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")
ANSWERS = "<|channel|>final<|message|>"


@dataclass(frozen=True)
class Wanted:
    """What a reply must be.

    Args:
        functions: that may be called.
        must_call: whether one must be.
        parallel: whether several calls may be made at once.
        answer: the schema of an answer that is no call; None = any text.
    """

    functions: list[Function]
    must_call: bool = False
    parallel: bool = True
    answer: Schema | None = None


def with_calls(form: Format) -> Format:
    """The format with a way to write calls, one in plain JSON if it has none."""
    return form if form.calls else replace(form, calls=(_GENERIC,))


def can_think(form: Format, template: str) -> bool:
    """Whether a model thinks at times, as far as its chat template tells."""
    tags = _reasoning(form)
    return tags is not None and tags.begin.strip() in template


def _reasoning(form: Format) -> Tags | None:
    return CHANNELS if form.channels else next(iter(form.reasoning), None)


def reply_grammar(form: Format, wanted: Wanted, rules: Rules, *, thinks: bool, opened: Tags | None) -> Grammar | None:
    """The grammar of a reply, None if it may be anything.

    Args:
        thinks: whether reasoning may come before what must be written.
        opened: reasoning that the prompt has opened.

    Raises:
        ValueError, TypeError: a schema cannot be enforced; the message names the keyword.
    """
    ways = [
        written_calls(calls, wanted.functions, rules, parallel=wanted.parallel)
        for calls in (form.calls[:1] if wanted.must_call else form.calls)
        if wanted.functions
    ]
    if not wanted.must_call and wanted.answer is None:
        return Grammar(rules.grammar(rules.one_of(ways)), False, _trigger(form, wanted, opened)) if ways else None
    if wanted.answer is not None:
        ways.append(_answer(form, wanted.answer, rules))
    start = rules.one_of(ways)
    tags = _reasoning(form)
    if opened is not None:
        start = f"{rules.until(opened.end)} {rules.space} {start}"
    elif thinks and tags is not None:
        start = f"({rules.space} {rules.literal(tags.begin.strip())} {rules.until(tags.end)} {rules.space})? {start}"
    return Grammar(rules.grammar(start), False)


def _answer(form: Format, schema: Schema, rules: Rules) -> str:
    """The answer in JSON, with what may stand round answers."""
    item = rules.json(schema)
    if form.channels:
        return rules.rule(f"{rules.literal(ANSWERS)} {item}")
    if form.frames:
        frame = rules.one_of(map(rules.literal, form.frames))
        return rules.rule(f"{frame}? {item} {frame}{{0,2}}")
    return item


def _trigger(form: Format, wanted: Wanted, opened: Tags | None) -> Trigger:
    texts: list[str] = []
    at_start: list[str] = []
    for calls in form.calls:
        if calls.bare:
            at_start += _bare_starts(calls, wanted.functions)
            continue
        shape = calls.shape
        head = shape.name[0] if isinstance(shape, Tagged) else shape.prefix if isinstance(shape, NamedJson) else ""
        starts = [calls.begin + calls.open + head]
        if calls.unbegun or calls.unopened:
            starts.append(calls.open + head if calls.unbegun else calls.begin + head)
        texts += [spelled for start in starts for spelled in (start.strip(), "".join(start.split()))]
    tags = opened or next(iter(form.reasoning), None)
    reasoning = None if tags is None else (tags.begin.strip(), tags.end.strip())
    return Trigger(tuple(dict.fromkeys(texts)), tuple(at_start), reasoning, is_reasoning=opened is not None)


def _bare_starts(calls: Calls, functions: list[Function]) -> list[str]:
    """What tells a call that nothing marks from an answer: its first key, or the name of a function."""
    if isinstance(calls.shape, JsonObject):
        return [
            f'{calls.begin}{calls.open}{{{space}"{calls.shape.name[0]}"' for space in ("", " ", "\n", "\n  ", "\n    ")
        ]
    behind = "(" if isinstance(calls.shape, Pythonic) else ""
    return [f"{calls.begin}{calls.open}{function.name}{behind}" for function in functions]
