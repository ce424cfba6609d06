"""The prompt of a chat request, for those who want to see it or its length."""

from __future__ import annotations

from ..chat.prompts import ChatPrompt
from ..chat.requests import PromptOptions, Tools, checked_chat
from ..llama import MaskProbeLlama
from .requests import ChatRequest


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
    options = {name: given[name] for name in PromptOptions.__annotations__.keys() & given.keys()}
    chat = Tools.of(given).offered_in(checked_chat(given["messages"], **options))
    return llm.prompts.of_chat(llm.chat_formats, chat, parse_special=given.get("parse_special", False))
