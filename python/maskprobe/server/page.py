"""The chat page: its files, the policy that holds it to them, and Markdown for it.

The page is HTML, CSS and JavaScript as they stand in static/; it asks this server alone, as any client does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, StringConstraints

from .errors import ApiError
from .markdown import to_html

_STATIC = files(__package__).joinpath("static")
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_SCRIPTS = ("page.js", "conversation.js", "drafted.js", "server.js", "speech.js", "view.js")
_FILES = {"/": "page.html"} | {f"/{name}": name for name in ("page.css", *_SCRIPTS)}
PAGE_PATHS = tuple(_FILES)  # open without the API key, which the page asks for

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "rendered",  # the one place that makes HTML of what the server rendered
}
_HEADERS = {"Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items())}


class Markdown(BaseModel):
    """A body of /render."""

    text: Annotated[str, StringConstraints(strict=True)]


def page_routes() -> APIRouter:
    """The page, its files, and ``POST /render``, which turns ``{"text": MARKDOWN}`` into ``{"html": HTML}``."""
    router = APIRouter()
    for path, name in _FILES.items():
        router.add_api_route(path, _sender(name), methods=["GET", "HEAD"])

    @router.post("/render")
    def render(body: Markdown) -> Response:  # in a thread of its own
        try:
            return JSONResponse({"html": to_html(body.text)})
        except ValueError as error:
            raise ApiError(400, f"text: {error}", param="text") from error

    return router


def _sender(name: str) -> Callable[[], Awaitable[Response]]:
    content = _STATIC.joinpath(name).read_bytes()
    media_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"

    async def send() -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    return send
