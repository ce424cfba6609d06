"""How an answer is to be read and what it must be: a parser, a grammar and the control tokens that both need.

Knows formats of replies and requests; leaves prompts to the chat room and dictionaries to answers.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..chat.prompts import ChatPrompt
from ..chat.requests import Choice, answer_schema
from ..checking import checked_flag
from ..grammars.grammar import Grammar
from ..loaded import LoadedModel
from ..replies import Format, Parser, named
from ..replies.parser import opened_reasoning
from ..replies.writing.calls import Function
from ..replies.writing.grammar import ANSWERS, CHANNELS, Wanted, can_think, reply_grammar, with_calls
from ..replies.writing.rules import Rules

_PROMPT_END = 256  # characters of a prompt, in which it may have opened reasoning
_MOST_GRAMMARS = 16  # that a model object remembers


@dataclass(frozen=True)
class Reading:
    """What to generate an answer with."""

    parser: Parser
    grammar: Any  # None = anything may come
    special: Collection[int]  # control tokens that the parser looks for; others are no text

    @staticmethod
    def of_chat(llm: LoadedModel, choice: Choice, arguments: Mapping[str, Any], prompt: ChatPrompt) -> Reading:
        """How the answer to a chat is read.

        Args:
            choice: what may be called.
            arguments: of create_chat_completion, by name.
            prompt: that is answered.

        Raises:
            ValueError, TypeError: what is wanted excludes each other, or cannot be enforced.
        """
        form, prompt_end = llm.reply_format, prompt.text[-_PROMPT_END:]
        if prompt.calls_as_hermes and not form.calls:
            form = dataclasses.replace(form, calls=named("hermes").calls)
        if checked_reasoning_format(arguments["reasoning_format"]) == "none":
            if form.channels:
                raise ValueError(f"reasoning_format none is not supported for {form.name}, whose answers have channels")
            form = dataclasses.replace(form, reasoning=())
        if choice.must_call:
            form = with_calls(form)
        grammar = _grammar(llm, form, choice, arguments, prompt_end)
        tools = [{"type": "function", "function": function} for function in choice.functions]
        texts = [*_strings(dataclasses.asdict(form if tools else dataclasses.replace(form, calls=())))]
        if form.channels:
            texts += [CHANNELS.begin, CHANNELS.end, ANSWERS]
        return Reading(form.parser(tools, prompt_end), grammar, llm.control_tokens.spelled_in(texts))


def checked_reasoning_format(value: object) -> str:
    """ "auto" or "none"."""
    if value not in ("auto", "none"):
        raise ValueError(f"reasoning_format must be auto or none, got {value!r:.80}")
    return str(value)


def _grammar(llm: LoadedModel, form: Format, choice: Choice, arguments: Mapping[str, Any], prompt_end: str) -> Any:
    grammar, schema = arguments["grammar"], answer_schema(arguments["response_format"])
    given = {"response_format": schema, "grammar": grammar, "tool_choice": choice.must_call or None}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} exclude each other; give one of them")
    if grammar is not None:
        return grammar
    parallel = arguments["parallel_tool_calls"]
    wanted = Wanted(
        [_function(function, choice.must_call) for function in choice.functions],
        must_call=choice.must_call,
        parallel=(parallel is None or checked_flag("parallel_tool_calls", parallel)) and not choice.once,
        answer=schema,
    )
    opened, thinks = opened_reasoning(form, prompt_end), can_think(form, llm.chat_formats.template(tools=True) or "")
    key = repr((form, wanted, opened, thinks))  # agents send the same tools again and again
    if key in (made := llm.reply_grammars):
        return made[key]
    vocab = llm.engine.model.vocab
    rules = Rules(llm.control_tokens.split, vocab.is_end, lambda schema: Grammar.from_schema(schema).matcher(vocab))
    grammar = reply_grammar(form, wanted, rules, thinks=thinks, opened=opened)
    # A new dictionary: other threads may be looking into the old one.
    kept = made if len(made) < _MOST_GRAMMARS else {}
    llm.reply_grammars = {**kept, key: grammar}
    return grammar


def _function(function: Mapping[str, Any], must_call: bool) -> Function:
    parameters = function.get("parameters")
    strict = must_call or bool(function.get("strict"))
    return Function(function["name"], {"type": "object"} if parameters is None else parameters, strict)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _strings(part)
