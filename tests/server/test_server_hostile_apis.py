"""Bodies that are no request, or too much of one, at every endpoint: one clear error in its own form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from server_fixtures import HELLO, fetch

# Every path with a body that it answers.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"messages": HELLO, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": HELLO},
}
RAW = [
    *[b"", b"{", b"null", b"[1]", b'"text"', b"[" * 100_000, b'{"a": \xff}'],
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


def error_of(path: str, told: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = told["error"]
    ours = {"message", "type"} if path.startswith("/v1/messages") else {"message", "type", "param", "code"}
    assert set(error) == ours
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    assert len(error["message"]) < 400
    return error


@pytest.mark.parametrize("path", [*BODIES, "/infill"])
def test_bodies_that_are_no_request(url: str, path: str) -> None:
    for body in RAW:
        reply = fetch(url, path, body)
        assert reply.status == 400, body[:30]
        error_of(path, reply.json())


@pytest.mark.parametrize("path", BODIES)
def test_values_that_no_answer_could_repeat(url: str, path: str) -> None:
    good = BODIES[path]
    assert fetch(url, path, good).status == 200
    name = next(iter(good))
    for value in ("\ud800", float("nan"), float("inf"), {"a": [10**400, "\ud800"]}):
        reply = fetch(url, path, good | {name: value})
        assert reply.status == 400, value
        error_of(path, reply.json())


@pytest.mark.parametrize("path", BODIES)
def test_long_texts(url: str, path: str) -> None:
    body = json.dumps(BODIES[path]).replace(HELLO[0]["content"], "word " * 20_000)
    reply = fetch(url, path, body.replace('"a"', json.dumps("a" * 10**5)).encode())
    fits = path in ("/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens")
    assert reply.status == (200 if fits else 400)
    assert fetch(url, path, BODIES[path]).status == 200
