"""The prompt of a chat request, for those who want to see it or its length."""

from __future__ import annotations

from typing import Any

from ..llama import MaskProbeLlama
from .requests import ChatRequest

# Arguments of a chat on which its prompt depends.
_ARGUMENTS = {"messages", "tools", "chat_template_kwargs", "reasoning_effort", "add_generation_prompt"}
_ARGUMENTS |= {"continue_final_message", "parse_special"}


def chat_text(llm: MaskProbeLlama, request: ChatRequest) -> str:
    """The prompt as text.

    Raises:
        ModelError, ValueError: there is no template, or it refuses the messages.
    """
    return llm.apply_chat_template(**_asked(request), tokenize=False)


def chat_tokens(llm: MaskProbeLlama, request: ChatRequest) -> list[int]:
    """The prompt as the model gets it. Raises what :func:`chat_text` raises."""
    return llm.apply_chat_template(**_asked(request), tokenize=True)


def _asked(request: ChatRequest) -> dict[str, Any]:
    return {name: value for name, value in request.arguments().items() if name in _ARGUMENTS}
