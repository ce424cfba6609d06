"""One call in each of the shapes that notations.py describes, read to its end."""

from __future__ import annotations

import ast
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskprobe.replies import values
from maskprobe.replies.notations import Braced, Calls, JsonObject, JsonPair, NamedJson, Pythonic, Tagged
from maskprobe.replies.reader import CutOffError, MalformedError, Reader, Reading


@dataclass(frozen=True)
class Call:
    """A whole call; arguments: the text of a JSON object."""

    name: str
    arguments: str
    id: str | None = None


class Tools:
    """The tools that a model was offered: their names, and the schemas of their arguments."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        functions = [tool.get("function", tool) for tool in tools if isinstance(tool, Mapping)]
        self._parameters = {
            function["name"]: function.get("parameters")
            for function in functions
            if isinstance(function, Mapping) and isinstance(function.get("name"), str)
        }

    def __bool__(self) -> bool:
        return bool(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def schema(self, name: str) -> Mapping[str, Any]:
        schema = self._parameters.get(name)
        return schema if isinstance(schema, Mapping) else {}

    def properties(self, name: str) -> Mapping[str, Any]:
        properties = self.schema(name).get("properties")
        return properties if isinstance(properties, Mapping) else {}


def call(reader: Reader, calls: Calls, tools: Tools) -> Reading[Call]:
    """One call; a MalformedError if the text is none. What is bare must name a tool, since nothing else marks it."""
    shape = calls.shape
    match shape:
        case JsonObject():
            return (yield from _json_object(reader, shape, tools if calls.bare else None))
        case JsonPair():
            return (yield from _json_pair(reader))
        case NamedJson():
            return (yield from _named_json(reader, shape))
        case Tagged():
            return (yield from _tagged(reader, shape, tools))
        case Pythonic():
            return (yield from _pythonic(reader, tools if calls.bare else None))
        case Braced():
            name = yield from reader.name()
            return Call(name, values.as_object((yield from values.value(reader, shape.quote))))


def _json_object(reader: Reader, shape: JsonObject, only: Tools | None) -> Reading[Call]:
    yield from reader.literal("{")
    found: dict[str, str] = {}
    while True:
        yield from reader.blank()
        key = values.decoded((yield from values.string(reader)))
        if only is not None and key not in (*shape.name, *shape.arguments, "type", "id"):
            raise MalformedError
        yield from reader.literal(":")
        found[key] = yield from values.value(reader)
        name = _first(found, shape.name)
        if only is not None and name is not None and _text(name) not in only:
            raise MalformedError
        yield from reader.blank()
        if (yield from reader.next_is(",", "}")) is None:
            raise MalformedError
        if reader.take(1) == "}":
            break
    arguments = _first(found, shape.arguments)
    if name is None or (arguments is None and only is not None):
        raise MalformedError
    call_id = found.get(shape.id) if shape.id else None
    return Call(_text(name), values.as_object(arguments or "{}"), _text(call_id) if call_id else None)


def _first(found: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((found[key] for key in keys if key in found), None)


def _text(value: str) -> str:
    """A JSON value as text: a string's own, else as it is written."""
    if not (text := values.decoded(value) if value.lstrip().startswith('"') else value.strip()):
        raise MalformedError
    return text


def _json_pair(reader: Reader) -> Reading[Call]:
    yield from reader.literal("{")
    yield from reader.blank()
    name = _text((yield from values.string(reader)))
    yield from reader.literal(":")
    arguments = yield from values.value(reader)
    yield from reader.literal("}")
    return Call(name, values.as_object(arguments))


def _named_json(reader: Reader, shape: NamedJson) -> Reading[Call]:
    yield from reader.blank()
    written = name = yield from reader.name()
    call_id = None
    if shape.prefix:
        name = name.removeprefix(shape.prefix)
    if shape.numbered:
        call_id = written
        name = name.rpartition(":")[0] or name
    if shape.id and (yield from reader.literal(shape.id, optional=True)):
        call_id = yield from reader.name()
    yield from reader.blank()
    if (yield from reader.peek()) != "{":  # some models go on with the arguments at once
        yield from reader.literal(shape.then)
    return Call(name, values.as_object((yield from values.value(reader))), call_id)


def _pythonic(reader: Reader, only: Tools | None) -> Reading[Call]:
    yield from reader.blank()
    name = yield from reader.name()
    if only is not None and name not in only:
        raise MalformedError
    yield from reader.literal("(")
    pieces: list[str] = []
    closers = [")"]
    while closers:
        found = yield from reader.until(("(", "[", "{", ")", "]", "}", "'", '"'), pieces.append)
        if found is None:
            raise CutOffError
        pieces.append(reader.take(1))
        if found in "'\"":
            yield from _python_string(reader, found, pieces)
        elif found in "([{":
            closers.append({"(": ")", "[": "]", "{": "}"}[found])
        elif found != closers.pop():
            raise MalformedError
    return Call(name, _python_arguments("".join(pieces)))


def _python_string(reader: Reader, quote: str, pieces: list[str]) -> Reading[None]:
    """A string as Python takes it: models write line breaks and backslashes in it that Python does not."""

    def keep(text: str) -> None:
        pieces.append(text.replace("\n", "\\n").replace("\r", "\\r"))

    while (found := (yield from reader.until((quote, "\\"), keep))) == "\\":
        reader.take(1)
        known = (yield from reader.peek()) in "\\'\"abfnrtvxuUN01234567"
        keep(("\\" if known else "\\\\") + reader.take(1))
    if found is None:
        raise CutOffError
    pieces.append(reader.take(1))


class _JsonNames(ast.NodeTransformer):
    """JSON's own names among Python's literals."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant({"true": True, "false": False, "null": None}[node.id])


def _python_arguments(text: str) -> str:
    """KEY=VALUE, ...) as a JSON object."""
    try:
        tree = ast.parse(f"f({text}", mode="eval").body
        if not isinstance(tree, ast.Call) or tree.args:
            raise MalformedError
        found = {str(word.arg): ast.literal_eval(_JsonNames().visit(word.value)) for word in tree.keywords}
        return values.written(found)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError):
        raise MalformedError from None


def _tagged(reader: Reader, shape: Tagged, tools: Tools) -> Reading[Call]:
    yield from reader.literal(shape.name[0])
    yield from reader.blank()
    name = yield from reader.name()
    if shape.alone and (yield from reader.literal(shape.alone, optional=True)):
        return Call(name, "{}")
    yield from reader.literal(shape.name[1])
    found: dict[str, str] = {}
    key_mark = shape.key.strip()
    while True:
        yield from reader.blank()
        mark = yield from reader.next_is(key_mark, shape.end)
        if mark is None:
            raise MalformedError
        reader.take(len(mark))
        if mark == shape.end:
            break
        key, kind = yield from _tagged_key(reader, shape)
        due = tuple(other for other in tools.properties(name) if other != key and other not in found)
        text, last = yield from _tagged_value(reader, shape, due)
        if kind == "text":
            found[key] = values.written(text)
        else:
            schema = tools.properties(name).get(key) if kind == "schema" else None
            found[key] = values.typed(text, schema, tools.schema(name))
        if last:
            break
    pairs = ", ".join(f"{values.written(key)}: {text}" for key, text in found.items())
    return Call(name, f"{{{pairs}}}")


def _tagged_key(reader: Reader, shape: Tagged) -> Reading[tuple[str, str]]:
    """A key, and the kind of its value, up to where the value begins."""
    pieces: list[str] = []
    starts = tuple(text.strip() for text, _ in shape.values)
    ends = tuple({text.split()[0] for text in starts})
    if (yield from reader.until(ends, pieces.append)) is None:
        raise CutOffError
    if len(starts) == 1:
        yield from reader.literal(starts[0])
        kind = shape.values[0][1]
    else:
        found = yield from reader.next_is(*starts)
        if found is None:
            raise MalformedError
        reader.take(len(found))
        kind = dict(zip(starts, (kind for _, kind in shape.values), strict=True))[found]
    key = "".join(pieces).strip()
    return (html.unescape(key) if shape.escaped else key), kind


def _tagged_value(reader: Reader, shape: Tagged, due: tuple[str, ...]) -> Reading[tuple[str, bool]]:
    """A value's text, and whether the call ended with it.

    Its end counts where another key or the call's end follows, so that a value may hold the texts of both. Models
    forget it at times: then one of the keys that are due, on a line of its own, ends the value too, or the call's end
    where the reply ends.
    """
    pieces: list[str] = []
    last = False
    end = shape.value_end.strip()
    own_line = shape.value_end.startswith("\n")
    forgotten = tuple(f"\n{shape.key}{key}{shape.values[0][0].strip()}" for key in due) if own_line else ()
    while True:
        found = yield from reader.until((end, *forgotten), pieces.append)
        if found is None:
            head, last_mark, tail = "".join(pieces).rpartition(shape.end)
            if not last_mark or tail.strip() not in ("", "</tool_call>"):
                raise CutOffError
            pieces, last = [head], True
            break
        if found != end or (yield from reader.followed_by(len(end), (shape.key.strip(), shape.end))):
            reader.take(len(end) if found == end else 1)
            break
        pieces.append(reader.take(len(end)))
    text = "".join(pieces)
    if own_line:
        text = text.removeprefix("\n").removesuffix("\n")
    if shape.cdata and text.startswith("<![CDATA[") and text.endswith("]]>"):
        text = text[len("<![CDATA[") : -len("]]>")]
    return text, last
