"""RPC servers: what is said when they cannot be used, and that llama.cpp is only asked for those that answer.

Servers here are imitations: llama-cpp-python is built without RPC unless one asks for it. bench/rpc.py runs real ones.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama, RpcError, Speculation
from maskprobe.cli import app
from maskprobe.llamacpp import rpc
from maskprobe.llamacpp.installed import function

FREE_PORT = "127.0.0.1:1"  # nothing listens there
OURS = rpc._PROTOCOL
GREETING = struct.pack("<BQ", 14, 24) + bytes(24)


def answer(major: int, minor: int) -> bytes:
    return struct.pack("<Q", 28) + bytes([major, minor, 0, 0]) + bytes(24)


class Received(list[bytes]):
    """What a server was sent, by the thread that reads it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def append(self, what: bytes) -> None:
        with self._changed:
            super().append(what)
            self._changed.notify_all()

    def once(self, n: int) -> list[bytes]:
        """All of it, as soon as there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self) >= n, timeout=60.0)
            return [*self]


@contextmanager
def server(reply: bytes | None) -> Iterator[tuple[str, Received]]:
    """Something that answers greetings with these bytes, or keeps silent; and what it was sent."""
    received = Received()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as stream:
                    received.append(stream.read(len(GREETING)))
                    try:
                        if reply is not None:
                            connection.sendall(reply)
                            connection.shutdown(socket.SHUT_WR)
                        received.append(stream.read())
                    except OSError:
                        received.append(b"reset")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", received
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def tiny(tiny_path: Callable[[str], Path]) -> Path:
    return tiny_path("llama")


@pytest.mark.parametrize(
    ("servers", "error", "message"),
    [
        (["10.0.0.2"], ValueError, r"host:port such as 10\.0\.0\.2:50052.*got '10\.0\.0\.2'"),
        (["host:0"], ValueError, "got 'host:0'"),
        (["host:65536"], ValueError, "got 'host:65536'"),
        ([":50052"], ValueError, "got ':50052'"),
        (["[::1]:50052"], ValueError, r"IPv4 address\), got '\[::1\]:50052'"),
        (["host:50052,other:50052"], ValueError, "got 'host:50052,other:50052'"),
        (["host:50052\n"], ValueError, r"got 'host:50052\\n'"),
        (["a:1", "b:2", "a:1"], ValueError, "a:1 is named twice"),
        ("host:50052", TypeError, r'a list such as \["10\.0\.0\.2:50052"\], got \'host:50052\''),
        ([50052], TypeError, r"got \[50052\]"),
    ],
)
def test_addresses_are_checked_before_anything_is_loaded(servers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MaskProbeLlama("nowhere.gguf", n_gpu_layers=-1, rpc_servers=servers)


def test_servers_without_layers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no layers with n_gpu_layers=0; give n_gpu_layers=-1"):
        MaskProbeLlama("nowhere.gguf", rpc_servers=["host:50052"])


def test_a_build_without_rpc_says_how_to_get_it(tiny: Path) -> None:
    remedy = (
        r"built without RPC. Build it again with: CMAKE_ARGS=\"-DGGML_RPC=on\" pip install --force-reinstall "
        r'--no-cache-dir --no-deps "llama-cpp-python>=0\.3\.'
    )
    with pytest.raises(RpcError, match="cannot be reached" if llama_cpp.llama_supports_rpc() else remedy):
        MaskProbeLlama(tiny, n_gpu_layers=-1, rpc_servers=[FREE_PORT])
    options = ["-m", str(tiny), "--n-threads", "1", "--n-gpu-layers", "-1", "--rpc", FREE_PORT]
    assert isinstance(CliRunner().invoke(app, ["generate", "Hi", *options]).exception, RpcError)
    result = CliRunner().invoke(app, ["doctor", "--json", *options])
    (check,) = (check for check in json.loads(result.stdout)["checks"] if check["name"] == f"RPC {FREE_PORT}")
    assert check["status"] == "problem"


def test_a_server_of_this_protocol_is_greeted_as_llama_cpp_does() -> None:
    with server(answer(*OURS)) as (address, received):
        rpc.greet(address)
    assert received == [GREETING, b"reset"]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer(99, 0), rf"speaks protocol 99\.0, llama-cpp-python 0\.3.* speaks {OURS[0]}\.{OURS[1]}"),
        (answer(OURS[0], OURS[1] + 1), rf"speaks protocol {OURS[0]}\.{OURS[1] + 1}"),
        (answer(OURS[0] - 1, 0), rf"speaks protocol {OURS[0] - 1}\.0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n and so on and on", "no RPC server of this llama.cpp"),
        (b"", "no RPC server of this llama.cpp"),
        (None, "does not answer .*timed out.* one client at a time"),
    ],
    ids=["newer", "newer minor", "older", "HTTP", "nothing", "silence"],
)
def test_what_else_may_answer(reply: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_PATIENCE", 0.2)
    with server(reply) as (address, received), pytest.raises(RpcError, match=f"{address} (is )?{message}"):
        rpc.greet(address)
    # A server of llama.cpp that is busy reads this later. It would die of writing to a connection that was closed.
    assert received == [GREETING, b"reset"]


@pytest.mark.parametrize("address", [FREE_PORT, "no-such-host.invalid:50052"])
def test_a_server_that_cannot_be_reached_is_named(address: str) -> None:
    with pytest.raises(RpcError, match=f"RPC server {address} cannot be reached .*ggml-rpc-server running there"):
        rpc.greet(address)


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ggml's RPC with the CPU as the device of every server; the servers that it was asked for."""
    asked: list[str] = []

    def devices_of(address: str, _: object) -> list[int]:
        asked.append(address)
        return [function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)(0)]

    monkeypatch.setattr(rpc, "_add_server_function", lambda: None)
    monkeypatch.setattr(rpc, "_devices_of", devices_of)
    return asked


def test_llama_cpp_is_not_asked_for_a_server_that_does_not_answer(tiny: Path, imitated: list[str]) -> None:
    with server(answer(*OURS)) as (address, _), pytest.raises(RpcError, match=FREE_PORT):
        MaskProbeLlama(tiny, n_gpu_layers=-1, rpc_servers=[address, FREE_PORT])
    assert imitated == []


def test_a_model_uses_its_servers_and_leaves_them(
    tiny: Path, imitated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "n_gpu_layers": -1, "speculation": Speculation(budget=4)}
    with server(answer(*OURS)) as (address, received):
        with MaskProbeLlama(tiny, rpc_servers=[address], **options) as llm:
            assert llm.rpc_servers == (address,)
            assert f"all layers on RPC {address}" in llm.engine.setup
            tokens = llm.generate([5, 6, 7], max_tokens=6, temperature=0.0).tokens
            # The second model shares the connection: a server that serves one client would not answer again.
            MaskProbeLlama(tiny, rpc_servers=[address], **options).close()
            assert received.once(2) == [GREETING, b"reset"]
        MaskProbeLlama(tiny, rpc_servers=[address], **options).close()
    assert received == [GREETING, b"reset"] * 2
    assert imitated == [address] * 3
    with MaskProbeLlama(tiny, **options) as local:
        assert local.generate([5, 6, 7], max_tokens=6, temperature=0.0).tokens == tokens


def test_a_model_that_cannot_be_loaded_leaves_its_servers(tmp_path: Path, imitated: list[str]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    with server(answer(*OURS)) as (address, received):
        for _ in range(2):
            with pytest.raises(Exception, match=r"cannot load .*broken\.gguf"):
                MaskProbeLlama(broken, n_gpu_layers=-1, rpc_servers=[address])
    assert received == [GREETING, b"reset"] * 2
