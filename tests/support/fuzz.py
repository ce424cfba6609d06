"""Fuzzes one of fuzz_targets with atheris, libFuzzer for Python, which learns from the lines that inputs reach.

    pip install atheris
    python tests/support/fuzz.py TARGET -max_total_time=300 NEW_INPUTS tests/attacks/TARGET

Options are libFuzzer's. Inputs that are JSON are changed as such most of the time: bytes alone seldom keep it whole.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["maskprobe"]):
    from fuzz_targets import TARGETS

    from maskprobe.server import requests
    from maskprobe.server.llama_server.body import InfillRequest, TokenizeRequest
    from maskprobe.server.messages.body import MessagesRequest
    from maskprobe.server.responses.body import ResponsesRequest

JSON = ("messages", "prompts", "requests", "results")
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "a", "\0",
    "\ud800", "\U0010ffff", "<|im_start|>", "<|im_end|>", "im_end", "|>", "<|", "</s>", [], {}, [[]], {"a": 1},
]  # fmt: skip
KEYS = sorted(
    {
        *requests.ChatRequest.model_fields, *requests.CompletionRequest.model_fields, *requests.Message.model_fields,
        *ResponsesRequest.model_fields, *MessagesRequest.model_fields, *InfillRequest.model_fields,
        *TokenizeRequest.model_fields, "call_id", "output", "arguments", "input_schema", "tool_use_id", "thinking",
        "type", "function", "name", "parameters", "schema", "json_schema", "$ref", "properties", "items", "minItems",
        "maxLength", "pattern", "anyOf", "required", "enum", "tool_calls", "text", "include_usage",
    }
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((value, key), *places(inner))]


def change(rng: random.Random, root: Any) -> Any:
    """Replaces, copies, removes, adds or renames something in a JSON value."""
    found = places([root])
    container, key = rng.choice(found)
    kind = rng.randrange(6)
    if kind == 0:
        container[key] = rng.choice(VALUES)
    elif kind == 1:
        other, at = rng.choice(found)
        container[key] = json.loads(json.dumps(other[at]))
    elif kind == 2 and isinstance(container[key], str):
        mutated = atheris.Mutate(container[key].encode("utf-8", "surrogatepass") or b"a", 64)
        container[key] = mutated.decode("utf-8", "replace")
    elif kind == 2 and isinstance(container[key], (int, float)):
        container[key] = container[key] * rng.choice((-1, 2, 1000)) + rng.choice((0, 1))
    elif kind == 3 and container is not found[0][0]:
        del container[key]
    elif isinstance(container[key], dict):
        container[key][rng.choice(KEYS)] = rng.choice(VALUES)
    elif isinstance(container[key], list):
        container[key].append(json.loads(json.dumps(rng.choice(container[key] or VALUES))))
    return found[0][0][0]


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input."""
    rng = random.Random(seed)
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.8:
        try:
            root = json.loads(lines[at])
            for _ in range(rng.choice((1, 1, 2, 4))):
                root = change(rng, root)
            lines[at] = json.dumps(root, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
            return b"\n".join(lines)[:max_size]
        except (ValueError, OverflowError, RecursionError):
            pass
    return bytes(atheris.Mutate(data, max_size))


def fail(unraisable: sys.UnraisableHookArgs) -> None:
    """An exception inside a callback of llama.cpp's is a failure too."""
    traceback.print_exception(unraisable.exc_value)
    os.abort()


def main() -> None:
    name = sys.argv[1]
    sys.argv[:2] = [f"{sys.executable} {sys.argv[0]} {name}"]  # what -merge=1 runs again
    warnings.simplefilter("ignore")
    sys.unraisablehook = fail
    with tempfile.TemporaryDirectory() as folder, TARGETS[name](Path(folder)) as target:
        atheris.Setup(sys.argv, target, custom_mutator=mutate if name in JSON else None)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
