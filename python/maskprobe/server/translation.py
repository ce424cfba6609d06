"""Requests of other APIs as those of chats and completions: which fields they share, and errors by their own names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import AliasChoices, ValidationError

from . import errors
from .errors import ApiError
from .requests import ChatRequest, Request
from .worker import Part

R = TypeVar("R", bound=Request)

# What the APIs that become chats have fields of their own for.
_OWN = {"messages", "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "stop", "logprobs"}
_OWN |= {"top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"}


def _field_names(kind: type[Request], without: Collection[str]) -> frozenset[str]:
    """The names of a request's fields, all that they have."""
    names: set[str] = set()
    for name, field in kind.model_fields.items():
        if name not in without:
            others = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
            names |= {name, *(other for other in others if isinstance(other, str))}
    return frozenset(names)


# Fields by which chats, or completions and chats, say how the model draws: other APIs take them beside their own.
CHAT_SAMPLING = _field_names(ChatRequest, _OWN)
SAMPLING = _field_names(Request, {"model", "stream", "stream_options", "n", "max_tokens"})


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


def checked_extra(given: Mapping[str, Any] | None, known: Collection[str]) -> Part:
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


def wrong(param: str, message: str) -> ApiError:
    """What is wrong with a part of a request, which is named as its client does."""
    return ApiError(400, f"{param}: {message}", param=param)


def text_at(part: Part, key: str, at: str) -> str:
    """The text that a part of a request has under a key; at: where the part stands.

    Raises:
        ApiError: there is none.
    """
    value = part.get(key)
    if not isinstance(value, str):
        raise wrong(f"{at}.{key}", f"must be a text, got {value!r:.80}")
    return value
