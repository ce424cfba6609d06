"""JSON as models write it: read to its end while it comes, and made of bare text by a tool's schema."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from maskprobe.replies.reader import MalformedError, Reader, Reading

_IN_STRING = re.compile(r'[^"\\]*')
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_BARE = re.compile(r"[^,:{}\[\]<]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LONE = re.compile("[\ud800-\udfff]")  # halves of surrogate pairs: no encoding has them
_LITERALS = ("true", "false", "null")


def is_scalar(text: str) -> bool:
    """Whether a text is a JSON number, true, false or null."""
    return text in _LITERALS or _NUMBER.fullmatch(text) is not None


def string(reader: Reader) -> Reading[str]:
    """One JSON string, as written."""
    pieces = [(yield from _expect(reader, '"'))]
    while True:
        pieces.append((yield from reader.run(_IN_STRING)))
        if (yield from reader.peek()) == '"':
            return "".join([*pieces, reader.take(1)])
        pieces.append(reader.take(1))  # a backslash, and what it is for
        yield from reader.peek()
        pieces.append(reader.take(1))


def value(reader: Reader, quote: str | None = None) -> Reading[str]:
    """One JSON value, as written up to its last character; a MalformedError as soon as it cannot be one.

    With a quote, the value is in Gemma's way: bare keys, strings between two quotes. It comes out as JSON.
    """
    pieces: list[str] = []
    closers: list[str] = []  # of the objects and lists that are open
    due = "value"  # or "key", "colon", "comma"; "first": a value or key, or the end of an empty list or object
    while True:
        pieces.append((yield from reader.blank()))
        char = yield from reader.peek()
        if char in "}]" and due in ("first", "comma") and closers and char == closers[-1]:
            pieces.append(reader.take(1))
            closers.pop()
            due = "comma"
        elif due == "comma":
            pieces.append((yield from _expect(reader, ",")))
            due = "key" if closers[-1] == "}" else "value"
        elif due == "colon":
            pieces.append((yield from _expect(reader, ":")))
            due = "value"
        elif due == "key" or (due == "first" and closers[-1] == "}"):
            pieces.append((yield from _key(reader, quote)))
            due = "colon"
        elif char in "{[":
            pieces.append(reader.take(1))
            closers.append("}" if char == "{" else "]")
            due = "first"
        else:
            pieces.append((yield from _simple(reader, quote)))
            due = "comma"
        if not closers and due == "comma":
            return "".join(pieces).lstrip()


def _expect(reader: Reader, char: str) -> Reading[str]:
    if (yield from reader.peek()) != char:
        raise MalformedError
    return reader.take(1)


def _key(reader: Reader, quote: str | None) -> Reading[str]:
    if quote is None:
        return (yield from string(reader))
    if (yield from reader.next_is(quote)):
        return (yield from _quoted(reader, quote))
    key = yield from reader.run(_BARE)
    if not key.strip():
        raise MalformedError
    return written(key.strip())


def _simple(reader: Reader, quote: str | None) -> Reading[str]:
    """A string, number, true, false or null."""
    if quote is None and (yield from reader.peek()) == '"':
        return (yield from string(reader))
    if quote is not None and (yield from reader.next_is(quote)):
        return (yield from _quoted(reader, quote))
    text = (yield from reader.run(_SCALAR if quote is None else _BARE)).strip()
    yield from reader.peek()  # it may go on
    if is_scalar(text):
        return text
    if quote is None or not text:
        raise MalformedError
    return written(text)


def _quoted(reader: Reader, quote: str) -> Reading[str]:
    pieces: list[str] = []
    reader.take(len(quote))
    while (yield from reader.until((quote,), pieces.append)) is None:
        yield from reader.more()
    reader.take(len(quote))
    return written("".join(pieces))


def as_object(text: str) -> str:
    """A JSON text as the text of an object that any reader takes; a MalformedError if it holds none.

    Line breaks within strings are escaped, an object within a string comes out of it, null is an empty object.
    """
    for _ in range(2):
        try:
            held = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            raise MalformedError from None
        if isinstance(held, dict):
            return text if _is_strict(text) else written(held)
        text = "{}" if held is None else held if isinstance(held, str) else "[]"
    raise MalformedError


def written(held: Any) -> str:
    """A value as JSON; a MalformedError if JSON has none."""
    try:
        text = json.dumps(held, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise MalformedError from None
    return text if _LONE.search(text) is None else json.dumps(held)


def decoded(text: str) -> str:
    """What a JSON string says; a MalformedError if it is none, or says what no text can."""
    try:
        held = json.loads(text, strict=False)
    except ValueError:
        raise MalformedError from None
    if not isinstance(held, str) or _LONE.search(held):
        raise MalformedError
    return held


def _is_strict(text: str) -> bool:
    try:
        json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except ValueError:
        return False
    return True


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON's")


def typed(text: str, schema: Any, root: Mapping[str, Any]) -> str:
    """Bare text as JSON, by what its schema allows; a string is the last thing tried."""
    allowed = set(_types(schema, root, 8))
    bare = text.strip()
    word = bare.lower()
    if word in ("true", "false") and "boolean" in allowed:
        return word
    if bare == "null" and ("null" in allowed or not allowed):
        return "null"
    if bare == "None" and "string" not in allowed:
        return "null"
    if _NUMBER.fullmatch(bare) and allowed & {"number", "integer"}:
        whole = bare.removesuffix(".0")
        return whole if "number" not in allowed and whole.lstrip("-").isdigit() else bare
    if (held := _container(bare)) is not None and (not allowed or allowed & {held[0]}):
        return held[1]
    if "string" not in allowed and is_scalar(bare):
        return bare
    return written(text)


def _container(text: str) -> tuple[str, str] | None:
    """Whether a text is a list or an object, of JSON or of Python, and it as JSON."""
    if text[:1] not in ("[", "{"):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            held = read(text)
            if isinstance(held, list | dict):
                exact = read is json.loads and _is_strict(text)
                return "array" if isinstance(held, list) else "object", text if exact else written(held)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, MalformedError):
            continue
    return None


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The types that a schema allows, none if it says nothing about them."""
    if not isinstance(schema, Mapping) or not depth:
        return
    stated = schema.get("type")
    yield from [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else ()
    for member in ("anyOf", "oneOf", "allOf"):
        for part in schema[member] if isinstance(schema.get(member), list) else ():
            yield from _types(part, root, depth - 1)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        place: Any = root
        for step in reference[2:].split("/"):
            place = place.get(step) if isinstance(place, Mapping) else None
        yield from _types(place, root, depth - 1)
    if stated is None:
        for choice in [*(schema.get("enum") or ()), *([schema["const"]] if "const" in schema else ())]:
            yield _TYPE_OF.get(type(choice), "string")


_TYPE_OF = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}
