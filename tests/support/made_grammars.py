"""Grammars in GBNF that no author would write: made at random, or without an end."""

from __future__ import annotations

import random

ENDLESS = [
    '("a"? "b"? "c"?){60}',
    '("a"?){200}',
    '("a"?){2000}',
    '(("a"?){100}){100}',
    '((("a"?){1000}){1000}){1000}',
    '((("a"*)*)*)*',
    '([a-z]* " "?){0,30}',
    "r0\n" + "\n".join(f'r{i} ::= "a"? r{i + 1}' for i in range(500)) + '\nr500 ::= "b"',
    "r0\n" + "\n".join(f'r{i} ::= ("a" | "b")? r{i + 1} r{i + 1}?' for i in range(30)) + '\nr30 ::= "b"',
    'root root | "a" | "b" | ""',
    "(.{2000}){2000}",
    '("a" | "a" | "a" | "a" | "a" | "a" | "a"){0,1000}',
    " ".join('("a"? "b"? )' for _ in range(3000)),
]


def a_grammar(rng: random.Random) -> str:
    """Rules that begin with a character each, so that llama.cpp can read them."""
    names = ["root", "a", "b-1"]

    def item(depth: int) -> str:
        kind = rng.randrange(8) if depth else 0
        if kind < 3:
            return rng.choice(['"a"', '"b"', '"ab"', "[a-c]", "[^a]", '"é"', '" "', ".", '"日"', *names])
        if kind < 5:
            return f"({item(depth - 1)}){rng.choice(['?', '*', '+', '{2}', '{1,3}', '{0,2}'])}"
        if kind == 5:
            return f"({item(depth - 1)} | {item(depth - 1)})"
        return f"{item(depth - 1)} {item(depth - 1)}"

    def rule() -> str:
        return " | ".join(f"{rng.choice(['a', 'b', 'x'])!r} {item(2)}".replace("'", '"') for _ in range(2))

    return "\n".join(f"{name} ::= {rule()}" for name in names)
