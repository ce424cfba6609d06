"""Runs the application until it is told to stop. Knows sockets and signals."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .app import GRACE

_GRACE = 2  # seconds for connections to take what is left of their answers


def bind(host: str, port: int) -> socket.socket:
    """A socket on an address, not yet listening; port 0 = a free one.

    Raises:
        ValueError: the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, got {port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        bound = socket.socket(family, kind)
        try:
            if os.name == "posix":  # elsewhere it lets two servers share a port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(f"cannot serve on {host}:{port}: {getattr(error, 'strerror', None) or error}") from error
    return bound


def host_of(bound: socket.socket) -> str:
    """The host that a socket is bound to, as it stands in an URL."""
    host = bound.getsockname()[0]
    return f"[{host}]" if ":" in host else str(host)


def url_of(bound: socket.socket) -> str:
    """The URL of what is served on a socket."""
    return f"http://{host_of(bound)}:{bound.getsockname()[1]}"


def is_local(bound: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


class Server(uvicorn.Server):
    """uvicorn that says when it listens, and does not wait for generations when it is told to stop."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="on",
            loop="asyncio",
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
        super().__init__(config)
        self._worker = app.state.worker
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal stops the server, a second Ctrl-C at once; unlike uvicorn's own, it is not raised again after."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def serve(app: FastAPI, bound: socket.socket, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serves on a bound socket until SIGINT or SIGTERM; the model is free after.

    A model that goes on after that, in a pass that takes long, ends with the process: it cannot be freed.
    """
    try:
        Server(app, on_ready).run(sockets=[bound])
    finally:
        app.state.worker.stop()
        if not app.state.worker.join(GRACE):
            print("maskprobe: the model did not stop, so the process ends without it", file=sys.stderr, flush=True)
            os._exit(1)
