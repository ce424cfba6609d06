"""llama.cpp's RPC servers: other machines, or processes, that compute layers of a model.

Knows addresses, ggml's RPC functions and the greeting of their protocol; leaves what is computed where to llama.cpp.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..errors import RpcError
from .building import BACKENDS, build_command
from .devices import Device, describe, local_gpus
from .installed import function, llama_cpp, version_numbers

_ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):([0-9]{1,5})")
# llama.cpp ends the process where a server is absent or answers something else, so it is greeted here first: one byte
# of command, the size of what follows, capabilities. The answer is a size, three version numbers, capabilities.
_HELLO = struct.pack("<BQ24x", 14, 24)
_ANSWER = struct.Struct("<QBBBx24x")
# The RPC protocol of each tested version of llama-cpp-python; with others RPC alone is refused.
_PROTOCOLS: dict[tuple[int, ...], tuple[int, int]] = {(0, 3, 35): (5, 0), (0, 3, 36): (7, 0)}
_PROTOCOL = _PROTOCOLS.get(version_numbers(llama_cpp.__version__))
_PATIENCE = 5.0  # seconds
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # struct linger: on, for 0 s

_lock = threading.Lock()
_in_use: Counter[str] = Counter()  # servers by the models of this process that share its connection to them


def checked_servers(servers: Sequence[str] | None, n_gpu_layers: int) -> tuple[str, ...]:
    """The servers, if each is a host:port and they get any layers.

    Raises:
        ValueError, TypeError: they are not, or get none.
    """
    if servers is None:
        return ()
    if isinstance(servers, (str, bytes)) or not all(isinstance(server, str) for server in servers):
        raise TypeError(f'rpc_servers must be a list such as ["10.0.0.2:50052"], got {servers!r}')
    for server in servers:
        match = _ADDRESS.fullmatch(server)
        if match is None or not 1 <= int(match[2]) <= 65535:
            raise ValueError(
                f"an RPC server is a host:port such as 10.0.0.2:50052 (a name or an IPv4 address), got {server!r}"
            )
    twice = [server for server, times in Counter(servers).items() if times > 1]
    if twice:
        raise ValueError(f"the RPC server {twice[0]} is named twice; name each once")
    if servers and n_gpu_layers == 0:
        raise ValueError("RPC servers get no layers with n_gpu_layers=0; give n_gpu_layers=-1 for all layers")
    return tuple(servers)


class RpcDevices:
    """The devices of a model that RPC servers take part in: theirs, then the GPUs of this machine.

    They are this model's alone; llama.cpp's own list of devices stays as it is.

    Raises:
        RpcError: llama.cpp was built without RPC, or a server cannot be used.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        add_server = _add_server_function()
        with _lock:
            for server in servers:
                if not _in_use[server]:  # it serves one client at a time: a second greeting would wait for the first
                    greet(server)
            self._remote = [device for server in servers for device in _devices_of(server, add_server)]
            _in_use.update(servers)
        self._servers = tuple(servers)
        handles = [*self._remote, *local_gpus()]
        self._handles = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)

    def pointer(self) -> Any:
        """The devices as llama.cpp's model parameters take them."""
        return ctypes.cast(self._handles, ctypes.c_void_p)

    def described(self) -> list[Device]:
        """The servers' devices."""
        return [describe(device) for device in self._remote]

    def close(self) -> None:
        """To be called when the model is freed; closing twice is fine."""
        with _lock:
            _in_use.subtract(self._servers)
        self._servers = ()


def greet(server: str) -> None:
    """Asks a server for its version, as llama.cpp will.

    Raises:
        RpcError: it cannot be reached, does not answer, or speaks another protocol; or ours is not known.
    """
    if _PROTOCOL is None:
        raise RpcError(
            f"the RPC server {server} cannot be used: the protocol of llama-cpp-python {llama_cpp.__version__} is not "
            f"known; use a tested version: {build_command(BACKENDS['RPC'])}"
        )
    host, _, port = server.partition(":")
    with socket.socket(socket.AF_INET) as connection:
        connection.settimeout(_PATIENCE)
        # Closing resets: a server that comes to our greeting after we left would die of writing to a closed connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        try:
            connection.connect((host, int(port)))
        except OSError as error:
            raise RpcError(
                f"the RPC server {server} cannot be reached ({error}); is ggml-rpc-server running there, and listening "
                "on an address that this machine reaches?"
            ) from error
        try:
            connection.sendall(_HELLO)
            with connection.makefile("rb") as stream:
                answer = stream.read(_ANSWER.size)
        except OSError as error:
            raise RpcError(
                f"the RPC server {server} does not answer ({error}); it serves one client at a time: does another "
                "process hold it?"
            ) from error
    if len(answer) != _ANSWER.size or _ANSWER.unpack(answer)[0] != _ANSWER.size - 8:
        raise RpcError(f"what answers at {server} is no RPC server of this llama.cpp; run ggml-rpc-server there")
    _, major, minor, _ = _ANSWER.unpack(answer)
    if major != _PROTOCOL[0] or minor > _PROTOCOL[1]:
        ours = ".".join(map(str, _PROTOCOL))
        raise RpcError(
            f"the RPC server {server} speaks protocol {major}.{minor}, llama-cpp-python {llama_cpp.__version__} speaks "
            f"{ours}; run a server of the same llama.cpp"
        )


def _add_server_function() -> Any:
    """ggml's function that makes devices of a server."""
    llama_cpp.llama_backend_init()
    backend = function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)(b"RPC")
    if not backend:
        raise RpcError(
            f"llama-cpp-python {llama_cpp.__version__} was built without RPC. Build it again with: "
            f"{build_command(BACKENDS['RPC'])}"
        )
    find = function("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(find(backend, b"ggml_backend_rpc_add_server"))


def _devices_of(server: str, add_server: Any) -> list[int]:
    backend = add_server(server.encode())
    if not backend:
        raise RpcError(f"the RPC server {server} has no devices; start it with --device CPU or a GPU's name")
    count = function("ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)(backend)
    device_at = function("ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return [device_at(backend, i) for i in range(count)]
