"""Errors in the shape that clients read, OpenAI's or Anthropic's. Knows statuses and the package's exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import ClosedError, ContextError, DecodeError, MaskProbeError

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_ANTHROPIC = "/v1/messages"  # and what is below it
_ANTHROPIC_TYPES = _TYPES | {404: "not_found_error", 413: "request_too_large", 503: "overloaded_error"}


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

    def body(self, path: str = "") -> dict[str, Any]:
        """The JSON of the error, as clients of the path read it."""
        if path.startswith(_ANTHROPIC):
            return {
                "type": "error",
                "error": {"type": self._kind(_ANTHROPIC_TYPES, "api_error"), "message": self.detail},
            }
        kind = self._kind(_TYPES, "server_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}

    def response(self, path: str = "") -> JSONResponse:
        """The error as an HTTP response to a request of the path."""
        return JSONResponse(self.body(path), self.status_code, self.headers)

    def _kind(self, types: Mapping[int, str], failure: str) -> str:
        return types.get(self.status_code, failure if self.status_code >= 500 else "invalid_request_error")


def of_exception(error: Exception, fields: Mapping[str, str]) -> ApiError:
    """What a client is told of an exception that the model raised.

    Args:
        fields: the request's, by the names of the arguments that they became.
    """
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
    """The first of the errors that pydantic found in the body of a request."""
    error = errors[0]
    location = error["loc"][1:]  # behind "body"
    if error["type"] in ("json_invalid", "missing") and not any(isinstance(part, str) for part in location):
        return ApiError(400, "the body is not a JSON object", code="invalid_json")
    param = _path(location)
    # Validators of our own have said it all.
    given = "" if error["type"] in ("missing", "value_error") else f", got {_short(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "is not supported by this server; leave it out"
    return ApiError(400, f"{param}: {message}{given}" if param else f"{message}{given}", param=param)


def _named(*words: str, among: Mapping[str, str]) -> str | None:
    return next((among[word] for word in words if word in among), None)


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
