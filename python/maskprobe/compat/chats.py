"""Chats: the arguments of create_chat_completion become a completion, and that an answer.

There are two ways: the prompt that a format makes of the messages, or a handler of llama-cpp-python that asks itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..chat.control_tokens import Messages
from ..chat.handlers import ChatModel, Formatted, Handler, stream_chat, with_messages_as_text
from ..chat.requests import Tools, answer_grammar, checked_messages, checked_tools
from ..checking import checked_flag
from ..loaded import LoadedModel
from .answers import answer_chunks, chat_logprobs, whole_answer
from .completions import completion_parts, generation_arguments, refuse_callbacks
from .envelopes import whole_completion

_OURS = ("speculate", "cache_prompt", "before_pass")  # which no handler knows


def answer_messages(llm: LoadedModel, arguments: Mapping[str, Any]) -> Any:
    """An answer, or an iterator of its parts; arguments: those of create_chat_completion by name."""
    refuse_callbacks(arguments)
    checked_flag("stream", arguments["stream"])
    messages = checked_messages(arguments["messages"])
    tools = Tools(
        checked_tools(arguments["tools"], "tools"),
        arguments["tool_choice"],
        checked_tools(arguments["functions"], "functions"),
        arguments["function_call"],
    )
    options = generation_arguments(arguments)
    stop = options["stop"]
    options["stop"] = [stop] if isinstance(stop, str) else list(stop or ())
    handler = llm.chat_formats.handler()
    if handler is not None:
        return _by_handler(llm, handler, messages, tools, options, arguments)
    return _by_format(llm, messages, tools, options, arguments)


def _by_format(
    llm: LoadedModel, messages: Messages, tools: Tools, options: dict[str, Any], arguments: Mapping[str, Any]
) -> Any:
    tool = tools.called()
    options["grammar"] = answer_grammar(arguments["response_format"], arguments["grammar"], tool)
    options["logprobs"] = _n_top(arguments)
    formatted = Formatted("", [])

    def render(messages: Messages) -> str:
        nonlocal formatted
        formatted = llm.chat_formats.format(messages, **tools._asdict())
        return formatted.text

    prompt = llm.prompts.of_messages(messages, render, parse_special=arguments["parse_special"])
    options["stop"] += formatted.stop
    parts = completion_parts(llm, prompt, chat_logprobs, options)
    name = tool["name"] if tool is not None else None
    return answer_chunks(parts, name) if arguments["stream"] else whole_answer(whole_completion(parts), name)


def _by_handler(
    llm: LoadedModel,
    handler: Handler,
    messages: Messages,
    tools: Tools,
    options: dict[str, Any],
    arguments: Mapping[str, Any],
) -> Any:
    tools.check_for_own_grammars()
    if checked_flag("return_drafted", options.pop("return_drafted")):
        raise ValueError("return_drafted needs a chat format: a handler makes its answers itself; leave it out")
    model = ChatModel(llm, {name: options.pop(name) for name in _OURS})
    if not checked_flag("parse_special", arguments["parse_special"]):
        handler = with_messages_as_text(handler, llm)
    options |= tools._asdict()
    options["stream"] = arguments["stream"]
    options["grammar"] = answer_grammar(arguments["response_format"], arguments["grammar"], None)
    options["logprobs"], options["top_logprobs"] = arguments["logprobs"], _n_top(arguments)
    answer = handler(llama=model, messages=messages, **options)
    return stream_chat(answer, model) if arguments["stream"] else answer | {"timings": model.last["timings"]}


def _n_top(arguments: Mapping[str, Any]) -> int | None:
    return (arguments["top_logprobs"] or 0) if arguments["logprobs"] else None
