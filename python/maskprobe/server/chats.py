"""Requests as choices of the model: what all APIs have in common beside how requests and answers are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from . import errors
from .answering import Service
from .choices import Choices
from .errors import ApiError
from .requests import ChatRequest, CompletionRequest, Request
from .worker import Part

R = TypeVar("R", bound=Request)


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


# Fields beside an API's own that it takes as chats do: how the model draws, llama-server's and maskprobe's names.
_OWN = {"messages", "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "stop", "logprobs"}
_OWN |= {"top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"}
SAMPLING = frozenset(ChatRequest.model_fields) - _OWN


def as_request(kind: type[R], body: Part, fields: Mapping[str, str]) -> R:
    """A request of another API as one of chats or completions.

    Args:
        body: of such a request.
        fields: the other API's by those of the request, where they differ.

    Raises:
        ApiError: what is wrong with it, by the other API's names.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        name, *rest = found["loc"] or ("",)
        place = ("body", *fields[str(name)].split(".")) if name in fields else ("body", name, *rest)
        raise errors.of_validation([{**found, "loc": place}]) from error


def names_of(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of an API that becomes chats, by the names of the model's arguments."""
    return {name: name for name in ChatRequest.model_fields} | dict(fields)


def checked_extra(given: Mapping[str, Any] | None, known: Collection[str] = SAMPLING) -> Part:
    """Fields beside an API's own.

    Raises:
        ApiError: there is one that nobody knows.
    """
    for name in given or ():
        if name not in known:
            raise ApiError(400, f"{name!a:.80} is no field that this server knows; leave it out", param=name[:80])
    return dict(given or {})


def skipped_header(kinds: Collection[str]) -> dict[str, str]:
    """The header that names the types of the tools of a request that this server has not."""
    plain = sorted({kind if re.fullmatch(r"[\w.-]{1,64}", kind, re.ASCII) else "other" for kind in kinds})
    return {"x-skipped-tools": ", ".join(plain)} if plain else {}
