"""Errors in the shape that OpenAI's clients read. Knows statuses and the package's exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import ClosedError, ContextError, DecodeError, MaskProbeError

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """An answer that is an error. FastAPI lets this kind through from inside the reading of a body.

    Args:
        status: of HTTP.
        message: one line for people.
        param: the field of the request that is at fault.
        code: for programs.
        headers: that the response carries.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON of the error."""
        kind = _TYPES.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as an HTTP response."""
        return JSONResponse(self.body(), self.status_code, self.headers)


def of_exception(error: Exception, fields: Iterable[str]) -> ApiError:
    """What a client is told of an exception that the model raised, given the request's fields."""
    if isinstance(error, ApiError):
        return error
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ContextError):
        return ApiError(400, message, param=_named("messages", "prompt", among=fields), code="context_length_exceeded")
    broken = isinstance(error, (ClosedError, DecodeError))
    if isinstance(error, (MaskProbeError, ValueError, TypeError)) and not broken:
        return ApiError(400, message, param=_named(*re.findall(r"\w+", message), among=fields))
    return ApiError(500, f"the model failed: {message}")


def of_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of the errors that pydantic found in a request."""
    error = errors[0]
    location = error["loc"][1:]
    if error["type"] in ("json_invalid", "missing") and not any(isinstance(part, str) for part in location):
        return ApiError(400, "the body is not a JSON object", code="invalid_json")
    param = _path(location)
    # Validators of our own have said it all.
    given = "" if error["type"] in ("missing", "value_error") else f", got {_short(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "is not supported by this server; leave it out"
    return ApiError(400, f"{param}: {message}{given}" if param else f"{message}{given}", param=param)


def _named(*words: str, among: Iterable[str]) -> str | None:
    fields = set(among)
    return next((word for word in words if word in fields), None)


def _path(location: Sequence[str | int]) -> str | None:
    """The place of an error in the request; pydantic adds names of types, which clients do not know."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in ("str", "int", "float", "bool") or not re.fullmatch(r"[a-z_]+", part):
            break
        else:
            path += f".{part}" if path else part
    return path or None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
