"""Who may use the server, and what browsers are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from server_fixtures import HELLO, fetch, load_for_server, openai_client, serving

from maskprobe import MaskProbeLlama

CHAT = "/v1/chat/completions"
BODY = {"messages": HELLO, "max_tokens": 1}
KEY = "sésame"  # keys need not be ASCII


@pytest.fixture(scope="module")
def locked(model_path: Callable[[str], Path]) -> Iterator[str]:
    with (
        load_for_server(model_path("Q4_0")) as llm,
        serving(
            llm, api_key=KEY, cors_origins=("https://chat.example",), allowed_hosts=("127.0.0.1", "my.host")
        ) as url,
    ):
        yield url


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, "Bearer s"])
def test_api_key_is_asked_for(locked: str, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode()}
    for path, body in ((CHAT, BODY), ("/v1/models", None), ("/metrics", None), ("/v1/nothing", None)):
        reply = fetch(locked, path, body, **headers)
        assert (reply.status, reply.error()["code"]) == (401, "invalid_api_key")
        assert reply.headers["WWW-Authenticate"] == "Bearer"


def test_right_api_key(locked: str, url: str) -> None:
    for scheme in ("Bearer", "bearer"):
        assert fetch(locked, CHAT, BODY, Authorization=f"{scheme} {KEY}".encode()).status == 200
    with openai_client(locked, "wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert fetch(url, CHAT, BODY, Authorization="Bearer whatever").status == 200, "no key, no check"


@pytest.mark.parametrize("path", ["/", "/health"])
def test_open_without_a_key(locked: str, path: str) -> None:
    assert fetch(locked, path).status == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LocalHost"])
def test_local_hosts_are_allowed(url: str, host: str) -> None:
    assert fetch(url, "/health", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "[::2]", "", "a@localhost"]
)
def test_other_hosts_are_not(url: str, host: str) -> None:
    """A foreign name that resolves to this machine must not open it to that name's pages."""
    for path, body in (("/", None), ("/health", None), (CHAT, BODY)):
        reply = fetch(url, path, body, Host=host)
        assert (reply.status, reply.error()["code"]) == (400, "host_not_allowed")
    assert "--allowed-host" in reply.error()["message"]


def test_named_hosts_only(locked: str) -> None:
    assert fetch(locked, "/health", Host="my.host:80").status == 200
    assert fetch(locked, "/health", Host="localhost").status == 400


def test_all_hosts_if_asked(served: MaskProbeLlama) -> None:
    with serving(served, allowed_hosts=("*",)) as url:
        assert fetch(url, "/health", Host="anything.example").status == 200


def test_no_cors_unless_asked(url: str) -> None:
    for method in ("GET", "OPTIONS"):
        reply = fetch(
            url, "/v1/models", None, method, Origin="https://chat.example", Access_Control_Request_Method="POST"
        )
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


def test_cors_for_named_sites(locked: str) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    reply = fetch(locked, CHAT, None, "OPTIONS", Origin="https://chat.example", **asked)
    assert reply.status == 200, "browsers send no key with this request"
    assert reply.headers["Access-Control-Allow-Origin"] == "https://chat.example"
    other = fetch(locked, CHAT, None, "OPTIONS", Origin="https://evil.example", **asked)
    assert other.headers["Access-Control-Allow-Origin"] is None
    denied = fetch(locked, CHAT, BODY, Origin="https://chat.example")
    assert denied.status == 401
    assert denied.headers["Access-Control-Allow-Origin"] == "https://chat.example"


@pytest.mark.parametrize("path", ["/", "/health", "/nothing"])
def test_headers_for_browsers(url: str, path: str) -> None:
    headers = fetch(url, path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Server"] is None
