"""Chats: the arguments of create_chat_completion become a completion, and that an answer.

There are two ways: the prompt that a format makes of the messages, or a handler of llama-cpp-python that asks itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..chat.handlers import ChatModel, Handler, stream_chat, with_messages_as_text
from ..chat.requests import Chat, PromptOptions, Tools, checked_chat, given_grammar
from ..checking import checked_flag
from ..loaded import LoadedModel
from .answers import answer_chunks, chat_logprobs, whole_answer
from .completions import completion_parts, generation_arguments
from .reading import Reading, checked_reasoning_format

_OURS = ("speculate", "cache_prompt", "before_pass")  # which no handler knows


def answer_messages(llm: LoadedModel, arguments: Mapping[str, Any]) -> Any:
    """An answer, or an iterator of its parts; arguments: those of create_chat_completion by name."""
    checked_flag("stream", arguments["stream"])
    chat = checked_chat(arguments["messages"], **_prompt_options(arguments))
    tools = Tools.of(arguments)
    options = generation_arguments(arguments)
    stop = options["stop"]
    options["stop"] = [stop] if isinstance(stop, str) else list(stop or ())
    handler = llm.chat_formats.handler()
    if handler is not None:
        return _by_handler(llm, handler, chat, tools, options, arguments)
    return _by_format(llm, chat, tools, options, arguments)


def _by_format(
    llm: LoadedModel, chat: Chat, tools: Tools, options: dict[str, Any], arguments: Mapping[str, Any]
) -> Any:
    options["logprobs"] = _n_top(arguments)
    choice = tools.choice()
    prompt = llm.prompts.of_chat(llm.chat_formats, tools.offered_in(chat), parse_special=arguments["parse_special"])
    options["stop"] += prompt.stop
    reading = Reading.of_chat(llm, choice, arguments, prompt)
    options["grammar"], options["special"] = reading.grammar, reading.special
    parts = completion_parts(llm, prompt.ids, chat_logprobs, options)
    chunks = answer_chunks(parts, reading.parser)
    if arguments["stream"]:
        return chunks
    return whole_answer(chunks, with_function=choice.must_call or tools.functions is not None)


def _by_handler(
    llm: LoadedModel,
    handler: Handler,
    chat: Chat,
    tools: Tools,
    options: dict[str, Any],
    arguments: Mapping[str, Any],
) -> Any:
    tools.check_for_own_grammars()
    _refuse_what_no_handler_knows(arguments)
    options.pop("return_drafted")
    for name in arguments["prompt"]:
        raise ValueError(f"{name} is for chat templates, and this chat format has none; leave it out")
    model = ChatModel(llm, {name: options.pop(name) for name in _OURS})
    if not checked_flag("parse_special", arguments["parse_special"]):
        handler = with_messages_as_text(handler, llm)
    options |= tools._asdict()
    options["stream"] = arguments["stream"]
    options["grammar"] = given_grammar(arguments["response_format"], arguments["grammar"])
    options["logprobs"], options["top_logprobs"] = arguments["logprobs"], _n_top(arguments)
    answer = handler(llama=model, messages=chat.messages, **options)
    return stream_chat(answer, model) if arguments["stream"] else answer | {"timings": model.last["timings"]}


def _prompt_options(arguments: Mapping[str, Any]) -> PromptOptions:
    options: PromptOptions = arguments["prompt"]
    for name in options:
        if name not in PromptOptions.__annotations__:
            raise TypeError(f"create_chat_completion() got an unexpected keyword argument {name!r}")
    return options


def _refuse_what_no_handler_knows(arguments: Mapping[str, Any]) -> None:
    choice = arguments["tool_choice"]
    given = {
        "return_drafted": checked_flag("return_drafted", arguments["return_drafted"]),
        "parallel_tool_calls": arguments["parallel_tool_calls"] is not None,
        "reasoning_format": checked_reasoning_format(arguments["reasoning_format"]) != "auto",
        "tool_choice allowed_tools": isinstance(choice, Mapping) and choice.get("type") == "allowed_tools",
    }
    for name, is_given in given.items():
        if is_given:
            raise ValueError(f"{name} is not supported with this chat_format; leave one of them out")


def _n_top(arguments: Mapping[str, Any]) -> int | None:
    return (arguments["top_logprobs"] or 0) if arguments["logprobs"] else None
