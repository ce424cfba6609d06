"""The prompt of a chat request, for those who want to see it or its length."""

from __future__ import annotations

from typing import Any

from ..llama import MaskProbeLlama
from .requests import ChatRequest


def chat_text(llm: MaskProbeLlama, request: ChatRequest) -> str:
    """The prompt as text.

    Raises:
        ModelError, ValueError: there is no template, or it refuses the messages.
    """
    messages, tools = _asked(request)
    return llm.chat_formats.format(messages, tools=tools).text


def chat_tokens(llm: MaskProbeLlama, request: ChatRequest) -> list[int]:
    """The prompt as the model gets it. Raises what :func:`chat_text` raises."""
    messages, tools = _asked(request)

    def render(messages: list[dict[str, Any]]) -> str:
        return llm.chat_formats.format(messages, tools=tools).text

    return llm.prompts.of_messages(messages, render, parse_special=bool(request.parse_special))


def _asked(request: ChatRequest) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    arguments = request.arguments()
    return arguments["messages"], arguments.get("tools")
