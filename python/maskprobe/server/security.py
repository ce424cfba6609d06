"""What stands in front of the routes: allowed hosts, API keys, the form of bodies, headers for browsers.

Each class is an ASGI middleware that knows one thing. A server on a local port is reachable from every web page that
the user opens, so a page of another site must neither name this server as its own (hosts) nor send it a request that
needs no permission (JSON only).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError

# Methods whose bodies nobody reads. Foreign pages need permission for DELETE whatever its body is.
_BODILESS = ("GET", "HEAD", "OPTIONS", "DELETE")
_CLIENT = "maskprobe.client"  # in the scope of a request


class SecureHeaders:
    """Adds headers that keep browsers from misusing responses; routes may set their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class AllowedHosts:
    """Answers requests to known hosts only, so that no foreign name can be bound to this server."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self._hosts:
            host = hostname(Headers(scope=scope).get("host", ""))
            if host not in self._hosts:
                message = f"the host {host!r} is not allowed here; start the server with --allowed-host {host}"
                return await ApiError(400, message, code="host_not_allowed").response(scope["path"])(
                    scope, receive, send
                )
        await self._app(scope, receive, send)


class ApiKeys:
    """Asks for a key, as a bearer token or as Anthropic's clients send it, except for the open paths.

    Where there are several, they tell clients from each other.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_paths: Collection[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open:
            found = self._find(scope["headers"])
            if found is None:
                error = ApiError(
                    401,
                    "this server asks for its API key: Authorization: Bearer KEY, or x-api-key: KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                return await error.response(scope["path"])(scope, receive, send)
            if len(self._keys) > 1:
                scope[_CLIENT] = f"key {found}"
        await self._app(scope, receive, send)

    def _find(self, headers: list[tuple[bytes, bytes]]) -> int | None:
        """Which of the keys a request has, None if none."""
        for name, value in headers:
            scheme, _, token = value.partition(b" ")
            if name == b"x-api-key":
                token = value
            elif name != b"authorization" or scheme.lower() != b"bearer":
                continue
            for i, key in enumerate(self._keys):
                if hmac.compare_digest(token.strip(), key):
                    return i
        return None


class JsonBodies:
    """Lets JSON bodies through, up to a size."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _BODILESS:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            error = ApiError(415, f"the body must be sent as application/json, got {media_type!r}")
        elif int(headers.get("content-length", 0)) > self._limit:
            error = self._too_large()
        else:
            return await self._app(scope, self._counted(receive), send)
        await error.response(scope["path"])(scope, receive, send)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._limit} bytes; see --max-body", code="body_too_large")

    def _counted(self, receive: Receive) -> Receive:
        """A body need not tell its length beforehand."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise self._too_large()
            return message

        return counted


def client_of(scope: Scope) -> str:
    """Who has sent a request, as far as the queue's order goes: the key where there are several, else the address.

    Headers that proxies set are not looked at: anybody can send them.
    """
    address = scope.get("client")
    return str(scope.get(_CLIENT) or (address[0] if address else ""))


def hostname(host: str) -> str:
    """The name in a Host header, without the port; IPv6 addresses stay in brackets."""
    name, bracket, _ = host.lower().partition("]")
    return name + bracket if bracket else name.partition(":")[0]
