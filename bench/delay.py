"""A relay that hands on what it gets after a while: a network, as it were, between processes of one machine."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence

_CHUNK = 1 << 20


@contextlib.contextmanager
def delayed(addresses: Sequence[str], ms: float) -> Iterator[list[str]]:
    """Addresses through which others are reached so much later, each way."""
    with contextlib.ExitStack() as stack:
        relays = []
        for address in addresses:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=_accept, args=(listening, address, ms / 1e3), daemon=True).start()
            stack.callback(listening.shutdown, socket.SHUT_RDWR)
            relays.append(f"127.0.0.1:{listening.getsockname()[1]}")
        yield relays


def _accept(listening: socket.socket, address: str, seconds: float) -> None:
    host, _, port = address.partition(":")
    while True:
        try:
            near, _ = listening.accept()
        except OSError:
            return
        far = socket.create_connection((host, int(port)))
        for source, target in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            due: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            threading.Thread(target=_read, args=(source, due, seconds), daemon=True).start()
            threading.Thread(target=_write, args=(target, due), daemon=True).start()


def _read(source: socket.socket, due: queue.SimpleQueue[tuple[float, bytes]], seconds: float) -> None:
    data = b" "
    while data:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        due.put((time.perf_counter() + seconds, data))


def _write(target: socket.socket, due: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    data = b" "
    while data:
        when, data = due.get()
        time.sleep(max(0.0, when - time.perf_counter()))
        with contextlib.suppress(OSError):
            if data:
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)
