"""How much a grammar or a JSON schema may ask for.

llama-cpp-python writes every repetition of a schema out, as groups within groups, and llama.cpp reads groups by
recursion: without a limit one request could take the memory or the stack of the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MAX_GRAMMAR = 65536  # characters
MAX_GROUPS = 1000  # in a grammar that somebody wrote
MAX_DEPTH = 2000  # of groups within groups, in any grammar
MAX_REPEATS = 1000  # of one thing
MAX_ALL_REPEATS = 20_000  # in a schema

# Where a parenthesis is a character: strings, character classes, comments.
_NO_GROUPS = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*')
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")


def checked_grammar(grammar: str) -> str:
    """The grammar.

    Raises:
        ValueError: it is too large.
    """
    if len(grammar) > MAX_GRAMMAR:
        raise ValueError(f"has {len(grammar)} characters, but {MAX_GRAMMAR} are the most")
    if grammar.count("(") > MAX_GROUPS:
        raise ValueError(f"has more than {MAX_GROUPS} groups; use rules instead")
    return grammar


def checked_depth(grammar: str) -> str:
    """The grammar.

    Raises:
        ValueError: its groups are nested so deeply that reading them would take the process down.
    """
    depth = 0
    for mark in re.findall(r"[()]", _NO_GROUPS.sub("", grammar)):
        depth += 1 if mark == "(" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"has groups that are nested more than {MAX_DEPTH} deep; use rules instead")
    return grammar


def checked_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema.

    Raises:
        ValueError: it has too many repetitions.
    """
    total = 0
    for name, count in _repeats(schema):
        total += count
        if count > MAX_REPEATS:
            raise ValueError(f"{name} is above {MAX_REPEATS}, the most that can be enforced; leave it out")
    if total > MAX_ALL_REPEATS:
        raise ValueError(f"has more than {MAX_ALL_REPEATS} repetitions in all; leave some limits out")
    return schema


def _repeats(schema: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """All repetitions in a schema and in what it holds."""
    rest: list[Any] = [schema]
    while rest:
        node = rest.pop()
        if isinstance(node, list):
            rest += node
        elif isinstance(node, dict):
            rest += node.values()
            yield from ((key, node[key]) for key in _REPEATS if type(node.get(key)) is int)
            if isinstance(pattern := node.get("pattern"), str):
                for numbers in re.findall(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}", pattern):
                    yield from (("a repetition in pattern", int(number[:9])) for number in numbers if number)
