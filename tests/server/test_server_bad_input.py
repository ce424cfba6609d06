"""Whatever a client sends gets one clear OpenAI-shaped error that names the field, and the server goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from server_fixtures import HELLO, fetch

from maskprobe import MaskProbeLlama
from maskprobe.chat.formats import ChatFormats

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
LIMIT = 4 * 2**20


@pytest.fixture(autouse=True)
def _goes_on(url: str) -> Iterator[None]:
    yield
    assert fetch(url, CHAT, {"messages": HELLO, "max_tokens": 1}).status == 200


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.5),
        ("temperature", "hot"),
        ("temperature", "0.5"),
        ("temperature", True),
        ("top_p", 1.1),
        ("min_p", -1),
        ("typical_p", 7),
        ("top_k", 2**31),
        ("top_k", 2.5),
        ("max_tokens", "many"),
        ("max_tokens", -2),
        ("max_tokens", 2**63),
        ("max_tokens", 10**4000),
        ("max_completion_tokens", 1e3),
        ("repeat_penalty", 0),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("mirostat_mode", 3),
        ("mirostat_tau", -1),
        ("seed", -5),
        ("seed", 2**32),
        ("seed", "abc"),
        ("n", 129),
        ("n", 0),
        ("stop", 7),
        ("stop[1]", 1),
        ("stop", ["a"] * 65),
        ("logit_bias", {"11": 101}),
        ("logit_bias", {"eleven": 1}),
        ("logit_bias", {"99999999": 1}),
        ("logit_bias", [1]),
        ("logprobs", 3),
        ("top_logprobs", 101),
        ("stream", "yes"),
        ("stream_options.include_usage", 1),
        ("speculate", "no"),
        ("cache_prompt", 0),
        ("model", 5),
        ("grammar", ""),
        ("grammar", "root ::= oops oops oops ["),
        ("grammar", "a" * 70000),
        ("grammar", "root ::= " + "(" * 30000 + ")" * 30000),
        ("response_format.type", "yaml"),
        ("response_format.json_schema", [1]),
        ("response_format.json_schema.schema", 1),
        ("max_tokens", 0),
        ("max_completion_tokens", 0),
        ("response_format", {"type": "json_schema"}),
        ("tools", "get_weather"),
        ("tools[0].function.name", ""),
        ("tool_choice", "sometimes"),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {"mode": "any", "tools": []}}),
        (
            "tool_choice",
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "nobody"}}]},
            },
        ),
        ("parallel_tool_calls", "no"),
        ("reasoning_format", "hidden"),
        ("tool_choice", {"type": "function", "function": {"name": "nobody"}}),
        ("no_such_field", 1),
        ("max_tokns", 5),
        ("dry_multiplier", 0.8),
        ("xtc_probability", 0.5),
        ("dynatemp_range", 0.1),
        ("samplers", ["top_k"]),
        ("repeat_last_n", 10),
        ("ignore_eos", True),
        ("modalities", ["audio"]),
        ("verbosity", "low"),
        ("audio", {"voice": "alloy"}),
        ("web_search_options", {}),
        ("stream_options.no_such_option", True),
        ("response_format.strict", True),
        ("tools[0].cache_control", {}),
        ("json_schema", {"type": "object", "uniqueItems": 1}),
        ("json_schema", 5),
        ("chat_template_kwargs", ["enable_thinking"]),
        ("chat_template_kwargs", {"messages": []}),
        ("chat_template_kwargs", {"tools": []}),
        ("reasoning_effort", 3),
        ("reasoning_effort", ""),
        ("add_generation_prompt", "no"),
        ("continue_final_message", 1),
        ("continue_final_message", True),  # the last message is the user's
        ("messages", "hello"),
        ("messages", []),
        ("messages[0]", "hello"),
        ("messages[0].role", None),
        ("messages[0].role", 3),
        ("messages[0].content", 3),
        ("messages[0].content", [{"type": "image_url", "image_url": {"url": "data:,"}}]),
        ("messages[0].content", ["hello"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_field_of_a_chat(url: str, param: str, value: Any) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "max_tokens": 1,
        "stop": ["a", "b"],
        "stream_options": {},
        "response_format": {"type": "text", "json_schema": {"schema": {}}},
        "tools": [{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "b"}}],
    }
    *path, last = re.findall(r"\w+", param)
    place: Any = body
    for name in path:
        place = place[int(name)] if name.isdigit() else place[name]
    place[int(last) if last.isdigit() else last] = value
    reply = fetch(url, CHAT, body)
    assert reply.status == 400
    error = reply.error()
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("prompt", {}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": [[]]}),
        ("prompt", {"prompt": [1, "b"]}),
        ("prompt", {"prompt": ["a", [1.5]]}),
        ("prompt", {"prompt": ["a"] * 2049}),
        ("prompt", {"prompt": {"text": "a"}}),
        ("prompt", {"prompt": None}),
        ("best_of", {"prompt": "a", "best_of": 2}),
        ("best_of", {"prompt": "a", "n": 2, "best_of": 3}),
        ("n", {"prompt": "a", "n": -1}),
        ("logprobs", {"prompt": "a", "logprobs": True}),
        ("logprobs", {"prompt": "a", "logprobs": 1000}),
        ("echo", {"prompt": "a", "echo": 1}),
        ("no_such_field", {"prompt": "a", "no_such_field": 1}),
        ("chat_template_kwargs", {"prompt": "a", "chat_template_kwargs": {}}),
        ("json_schema", {"prompt": "a", "json_schema": {"uniqueItems": True}}),
        ("json_schema", {"prompt": "a", "json_schema": {}, "grammar": 'root ::= "a"'}),
        ("suffix", {"prompt": "a", "suffix": "b"}),  # this model has no fill-in-the-middle tokens
        (None, {"prompt": [999999]}),
        (None, {"prompt": [-1]}),
    ],
    ids=str,
)
def test_bad_field_of_a_completion(url: str, param: str | None, body: dict[str, Any]) -> None:
    reply = fetch(url, COMPLETION, body)
    assert (reply.status, reply.error()["param"]) == (400, param)


def test_what_is_not_supported_is_named(url: str) -> None:
    message = fetch(url, CHAT, {"messages": HELLO, "min_tokens": 5}).error()["message"]
    assert message == "min_tokens: is not supported by this server; leave it out, got 5"
    both = {"json_schema": {}, "response_format": {"type": "json_object"}}
    error = fetch(url, CHAT, {"messages": HELLO} | both).error()
    assert (error["param"], "json_schema" in error["message"]) == ("response_format", True)


def test_calls_in_a_history_are_named_by_their_place(url: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ]
    reply = fetch(url, CHAT, {"messages": messages, "max_tokens": 1})
    assert (reply.status, reply.error()["param"]) == (400, "messages")
    assert "messages[1].tool_calls[0].function.arguments" in reply.error()["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b"null",
        b"[1]",
        b'"text"',
        b'{"messages": \xff\xfe}',
        b'{"messages": [{"role": "user", "content": "\xc3("}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "a"}], "mirostat_tau": 1e999}',
        b"[" * 100_000,
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_bodies_that_are_no_request(url: str, body: bytes) -> None:
    reply = fetch(url, CHAT, body)
    assert (reply.status, reply.error()["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_read(url: str, media_type: str) -> None:
    """What a foreign page can send without asking is refused."""
    body = json.dumps({"messages": HELLO, "max_tokens": 1}).encode()
    assert fetch(url, CHAT, body, Content_Type=media_type).status == 415
    assert fetch(url, CHAT, body, Content_Type="application/json; charset=utf-8").status == 200


def test_body_limit(url: str) -> None:
    def body(size: int) -> bytes:
        head, tail = b'{"messages": [{"role": "user", "content": "', b'"}]}'
        return head + b"a" * (size - len(head) - len(tail)) + tail

    for size in (LIMIT + 1, 10 * 2**20):
        reply = fetch(url, CHAT, body(size))
        assert (reply.status, reply.error()["code"]) == (413, "body_too_large")
    assert fetch(url, CHAT, body(LIMIT)).error()["code"] == "context_length_exceeded", "this much is read"


def test_body_limit_holds_without_a_length(url: str) -> None:
    for n, status, code in ((10, 413, "body_too_large"), (3, 400, "invalid_json")):
        pieces = (b'{"messages":' + b" " * (2**20 - 12) if i == 0 else b" " * 2**20 for i in range(n))
        reply = fetch(url, CHAT, pieces, Content_Type="application/json")  # sent in chunks
        assert (reply.status, reply.error()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", CHAT, 405), ("POST", "/v1/embeddings", 404), ("DELETE", "/health", 405)],
)
def test_unknown_paths_and_methods(url: str, method: str, path: str, status: int) -> None:
    reply = fetch(url, path, b"{}" if method != "GET" else None, method)
    assert reply.status == status
    assert reply.error()


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('echo broken') }}",
        "{% for a in range(10000000) %}{{ a }}{% endfor %}",
        "{{ 1 // 0 }}",
    ],
)
def test_template_that_raises(
    url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], template: str
) -> None:
    hostile = ChatFormats("model.gguf", {"tokenizer.chat_template": template}, "<s>", "</s>", None, None)
    with monkeypatch.context() as patch:
        patch.setattr(served, "chat_formats", hostile)
        reply = fetch(url, CHAT, {"messages": HELLO, "stream": True})
    assert reply.status == 400
    assert "template" in reply.error()["message"]
    assert "broken" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#"},
        {"type": "string", "maxLength": 1000},
        {"type": "string", "pattern": "(" * 2000},
    ],
    ids=lambda schema: repr(schema)[:40],
)
def test_hostile_schema_is_refused_or_answered(url: str, schema: dict[str, Any]) -> None:
    response_format = {"type": "json_object", "schema": schema}
    reply = fetch(url, CHAT, {"messages": HELLO, "max_tokens": 4, "response_format": response_format})
    assert reply.status in (200, 400)


def test_surprising_text_is_only_text(url: str) -> None:
    for text in ("\0", "\U0010ffff", "<|im_end|>", "a" * 900_000, "\u202e" * 100, "\r\n\t"):
        reply = fetch(url, CHAT, {"messages": [{"role": "user", "content": text}], "max_tokens": 1})
        assert reply.status == (400 if len(text) > 1000 else 200), repr(text[:10])
