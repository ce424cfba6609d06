"""Requests as choices of the model: what all APIs have in common beside how requests and answers are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .answering import Service
from .choices import Choices
from .requests import ChatRequest, CompletionRequest, Request


def chat_choices(service: Service, request: ChatRequest) -> Choices:
    """The choices of a chat."""
    # Handlers of llama-cpp-python ask the model in the call itself.
    checks = service.llm.chat_formats.handler() is None
    return _choices(service, request, service.llm.create_chat_completion, [{}], checks=checks)


def completion_choices(service: Service, request: CompletionRequest) -> Choices:
    """The choices of completions."""
    prompts = [{"prompt": prompt} for prompt in request.prompt]
    return _choices(service, request, service.llm.create_completion, prompts, checks=True)


def _choices(
    service: Service,
    request: Request,
    method: Callable[..., Any],
    prompts: Sequence[Mapping[str, Any]],
    *,
    checks: bool,
) -> Choices:
    return Choices(
        method=partial(method, **request.arguments(), model=service.name),
        prompts=prompts,
        n=request.n,
        seed=request.seed,
        stream=bool(request.stream),
        checks=checks,
    )
