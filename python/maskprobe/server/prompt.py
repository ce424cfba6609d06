"""The prompt of a chat request, for those who want to see it or its length."""

from __future__ import annotations

from ..chat.prompts import ChatPrompt
from ..chat.requests import Tools, checked_chat, checked_tools
from ..llama import MaskProbeLlama
from .requests import ChatRequest

# Arguments of a chat on which its prompt depends, beside messages and tools.
_OPTIONS = {"chat_template_kwargs", "reasoning_effort", "add_generation_prompt", "continue_final_message"}


def chat_text(llm: MaskProbeLlama, request: ChatRequest) -> str:
    """The prompt as text.

    Raises:
        ModelError, ValueError: there is no template, or it refuses the messages.
    """
    return _prompt(llm, request).text


def chat_tokens(llm: MaskProbeLlama, request: ChatRequest) -> list[int]:
    """The prompt as the model gets it. Raises what :func:`chat_text` raises."""
    return _prompt(llm, request).ids


def _prompt(llm: MaskProbeLlama, request: ChatRequest) -> ChatPrompt:
    given = request.arguments()
    tools = Tools(
        checked_tools(given.get("tools"), "tools"),
        given.get("tool_choice"),
        checked_tools(given.get("functions"), "functions"),
        given.get("function_call"),
    )
    chat = checked_chat(given["messages"], **{name: given[name] for name in _OPTIONS & given.keys()})
    parse_special = given.get("parse_special") or False
    return llm.prompts.of_chat(llm.chat_formats, tools.offered_in(chat), parse_special=parse_special)
