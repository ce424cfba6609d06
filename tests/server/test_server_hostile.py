"""Requests that have stopped comparable servers: after each of them this one is well, and answers the next one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from made_grammars import ENDLESS, a_grammar
from server_fixtures import DEADLINE, HELLO, connect, fetch, load_for_server, send, serving
from strange_texts import STRANGE

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
PROMPT = 2.0  # seconds for what is asked next


@pytest.fixture(scope="module")
def url(model_path: Callable[[str], Path]) -> Iterator[str]:
    with load_for_server(model_path("Q4_0")) as llm, serving(llm) as url:
        yield url


def check_well(url: str) -> None:
    for path, body in (("/health", None), (CHAT, {"messages": HELLO, "max_tokens": 1})):
        began = time.monotonic()
        assert fetch(url, path, body).status == 200
        assert time.monotonic() - began < PROMPT, path


def tool(parameters: Any) -> dict[str, Any]:
    function = {"name": "f", "parameters": parameters}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }


def schema(rules: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": rules}}}


GREEDY = {"temperature": 0, "max_tokens": 12}
EMPTY_CLASS = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[z-b]$"}}, "required": ["a"]}
HOSTILE: dict[str, tuple[dict[str, Any], int | None]] = {
    "a class of nothing": ({"grammar": "root ::= [z-b]"}, 400),
    "a pattern of nothing": (schema(EMPTY_CLASS), 400),
    "a tool of nothing": (tool(EMPTY_CLASS), 400),
    "a rule of nothing": ({"grammar": "root ::= root"}, 400),
    "bans on all that is allowed": ({"grammar": 'root ::= "\\x01"', "logit_bias": {"18": -100}}, None),
    "a repetition backwards": ({"grammar": 'root ::= "a"{2,1}'}, 400),
    "repetitions without end": ({"grammar": 'root ::= "a"{4000000000}'}, 400),
    "groups without end": ({"grammar": "root ::= " + "(" * 60000}, 400),
    "a rule that fails on its way": ({"grammar": 'root ::= ("a" (("a"?){1000}){1000})+', "max_tokens": 200}, 400),
    "a long pattern": (schema({"type": "string", "pattern": "^([a-z]* ?){0,30}$"}), 200),
    "a huge pattern": (schema({"type": "string", "pattern": "^((a{1000}){1000}){1000}$"}), None),
    "a bomb of references": (
        schema(
            {
                "$defs": {f"d{i}": {"allOf": 2 * [{"$ref": f"#/$defs/d{i + 1}"}]} for i in range(30)},
                "$ref": "#/$defs/d0",
            }
        ),
        400,
    ),
    "a deep schema": (schema(json.loads('{"items":' * 400 + "{}" + "}" * 400)), 400),
    "itself": (schema({"$ref": "#"}), 400),
    "two at once": ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, 400),
    "half a character": ({"messages": [{"role": "user", "content": "\ud800"}]}, 400),
    "a tiny temperature": ({"temperature": 1e-39}, 200),
    "no tokens": ({"max_tokens": 0}, 400),
    "an empty stop": ({"stop": ""}, 200),
    **{f"endless {i}": ({"grammar": f"root ::= {body}"}, None) for i, body in enumerate(ENDLESS)},
    **{f"made {seed}": ({"grammar": a_grammar(random.Random(seed))}, None) for seed in range(100, 106)},
    **{
        f"strange {i}": (schema({"type": "object", "properties": {text: {"enum": [text]}}, "required": [text]}), 200)
        for i, text in enumerate(STRANGE)
    },
}


def test_the_hostile_minute(url: str) -> None:
    for name, (fields, status) in HOSTILE.items():
        reply = fetch(url, CHAT, {"messages": HELLO} | GREEDY | fields)
        assert reply.status in (200, 400), (name, reply.body)
        assert status in (None, reply.status), (name, reply.body)
        if reply.status == 400:
            reply.error()
        check_well(url)


def test_a_client_that_leaves_a_costly_grammar_frees_the_model(url: str) -> None:
    for body in ENDLESS[:5]:
        with closing(connect(url)) as connection:
            send(connection, CHAT, {"messages": HELLO, "max_tokens": 900, "grammar": f"root ::= {body}"})
        check_well(url)


@pytest.mark.parametrize(
    ("rules", "keyword"),
    [({"not": {}}, "not"), ({"type": "array", "uniqueItems": True}, "uniqueItems"), ({"if": {}, "then": {}}, "if")],
    ids=str,
)
def test_a_schema_that_cannot_be_enforced_is_refused_by_name(rules: dict[str, Any], keyword: str, url: str) -> None:
    for fields, param in ((schema(rules), "response_format"), (tool(rules), "tools")):
        error = fetch(url, CHAT, {"messages": HELLO} | fields).error()
        assert f'"{keyword}"' in error["message"]
        assert error["param"] == param


def test_answers_follow_what_pydantic_makes_of_a_tree(url: str) -> None:
    from pydantic import BaseModel

    class Node(BaseModel):
        name: str
        children: list[Node] = []

    rules = Node.model_json_schema()
    reply = fetch(url, CHAT, {"messages": HELLO, "max_tokens": 400, "temperature": 0} | schema(rules))
    choice = reply.json()["choices"][0]
    if choice["finish_reason"] == "stop":
        jsonschema.validate(json.loads(choice["message"]["content"]), rules)
    else:
        assert choice["message"]["content"].startswith("{")


def test_a_tool_call_that_was_cut_is_none(url: str) -> None:
    parameters = {"type": "object", "properties": {"name": {"enum": ["Monday"]}}, "required": ["name"]}
    body = {"messages": HELLO, "temperature": 0} | tool(parameters)
    assert fetch(url, CHAT, body | {"max_tokens": 2}).json()["choices"][0]["finish_reason"] == "length"
    assert fetch(url, CHAT, body | {"stop": ["name"]}).json()["choices"][0]["finish_reason"] == "stop"
    assert fetch(url, CHAT, body | {"max_tokens": 200}).json()["choices"][0]["finish_reason"] == "tool_calls"


def test_heads_and_slashes(url: str) -> None:
    for path in ("/health", "/v1/models", "/v1/models/smollm2", "/metrics", "/"):
        reply = fetch(url, path, method="HEAD")
        assert (reply.status, reply.body) == (200, b"")
    assert fetch(url, "/v1/models/").json() == fetch(url, "/v1/models").json()


def test_half_a_character_with_echo(url: str) -> None:
    reply = fetch(url, COMPLETION, {"prompt": "a\ud800", "echo": True, "max_tokens": 1})
    assert (reply.status, "half a character" in reply.error()["message"]) == (400, True)


STUCK = """
import sys, time
from maskprobe import MaskProbeLlama
from maskprobe.core.session import Session
from maskprobe.server import Settings, bind, create_app, serve, url_of

def for_ever(*_):
    print("stuck", file=sys.stderr, flush=True)
    time.sleep(1000)

Session.prefill = for_ever
with MaskProbeLlama(sys.argv[1], n_ctx=512, n_threads=1) as llm:
    bound = bind("127.0.0.1", 0)
    app = create_app(llm, Settings(names=("x",)))
    serve(app, bound, lambda: print(url_of(bound), file=sys.stderr, flush=True))
"""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_model_that_does_not_stop_ends_with_the_process(sign: int, model_path: Callable[[str], Path]) -> None:
    command = [sys.executable, "-c", STUCK, str(model_path("Q4_0"))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"}) as process:
        assert process.stderr is not None
        try:
            with closing(connect(process.stderr.readline().strip())) as connection:
                send(connection, CHAT, {"messages": HELLO})
                assert process.stderr.readline() == "stuck\n"
                process.send_signal(sign)
                _, errors = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "maskprobe: the model did not stop, so the process ends without it"
