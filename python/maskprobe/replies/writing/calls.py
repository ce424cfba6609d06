"""How calls are written in a format, as rules of a grammar.

Knows the shapes of calls and the schemas of their arguments; leaves reading to the parser.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...grammars.schemas import Schema
from ..notations import Braced, Calls, JsonObject, JsonPair, NamedJson, Pythonic, Shape, Tagged
from . import values
from .rules import Rules
from .values import UnenforceableError, Values

_ID = "[a-zA-Z0-9]{9}"  # of a call, where its model writes one
_DESCRIBING = {"title", "description", "$schema", "$defs", "definitions", "$comment", "examples", "default"}


@dataclass(frozen=True)
class Function:
    """What may be called. strict: with arguments by its schema, or not at all."""

    name: str
    parameters: Schema
    strict: bool


def written_calls(calls: Calls, functions: list[Function], rules: Rules, *, parallel: bool) -> str:
    """One call, or if parallel several where something stands between them, of any of the functions.

    Raises:
        ValueError, TypeError: the parameters of a strict function cannot be enforced; the message names the keyword.
    """
    call = rules.one_of(_Writer(calls.shape, rules).call(function) for function in functions)
    begin, opening = rules.literal(calls.begin), rules.literal(calls.open)
    begin = f"({begin})?" if calls.unbegun else begin
    opening = f"({opening})?" if calls.unopened else opening
    call = f"{opening} {call} {rules.literal(calls.close)}"
    if parallel and (calls.open or calls.close or calls.between) and not rules.ends_in(calls.close):
        call = rules.rule(call)
        call = f"{call} ({rules.literal(calls.between) or rules.space} {call})*"
    return rules.rule(f"{begin} {call} {rules.literal(calls.end)}")


class _Writer:
    """Writes calls of one shape."""

    def __init__(self, shape: Shape, rules: Rules) -> None:
        self._shape = shape
        self._rules = rules

    def call(self, function: Function) -> str:
        """A call of a function, between what opens and closes it."""
        try:
            return self._rules.rule(self._call(function, function.parameters, loose=not function.strict))
        except (ValueError, TypeError) as error:
            raise type(error)(f"tools: the parameters of {function.name}: {error}") from error

    def _call(self, function: Function, schema: Schema, *, loose: bool) -> str:
        shape, rules, name = self._shape, self._rules, function.name
        if isinstance(shape, (JsonObject, JsonPair, NamedJson)):
            arguments = self._json(schema, loose)
            if isinstance(shape, NamedJson):
                return self._named(shape, name, arguments)
            return self._object(shape, name, arguments)
        if isinstance(shape, Tagged):
            return self._tagged(shape, name, schema, loose)
        python = isinstance(shape, Pythonic)
        notation = values.PYTHON if python else values.braced(shape.quote if isinstance(shape, Braced) else "")
        value = Values(rules, notation, schema)
        sign = rules.exactly("=" if python else ":")
        parts = [
            (f"{key} {sign} {rules.indent} {self._value(value, part, loose)}", must)
            for key, part, must in self._arguments(schema, loose)
        ]
        inner = rules.listed(parts, f'"," {rules.indent}')
        first, last = "()" if python else "{}"
        return f"{rules.exactly(name + first)} {rules.indent} {inner} {rules.indent} {rules.exactly(last)}"

    def _json(self, schema: Schema, loose: bool) -> str:
        try:
            return self._rules.json(schema)
        except (ValueError, TypeError):
            if not loose:
                raise
            return self._rules.json({"type": "object"})

    def _object(self, shape: JsonObject | JsonPair, name: str, arguments: str) -> str:
        rules = self._rules
        if isinstance(shape, JsonPair):
            members = [(name, arguments)]
        else:
            members = [(shape.name[0], rules.exactly(json.dumps(name))), (shape.arguments[0], arguments)]
        written = f' "," {rules.indent} '.join(self._member(key, item) for key, item in members)
        if isinstance(shape, JsonObject) and shape.id is not None:
            own_id = self._member(shape.id, rules.pattern(f'"{_ID}"'))
            written += f' ("," {rules.indent} {own_id})?'
        return f'"{{" {rules.indent} {written} {rules.indent} "}}"'

    def _member(self, key: str, item: str) -> str:
        return f"{self._rules.exactly(json.dumps(key))} {self._rules.exactly(':')} {self._rules.indent} {item}"

    def _named(self, shape: NamedJson, name: str, arguments: str) -> str:
        rules = self._rules
        number = f" {rules.pattern(':[0-9]{1,9}')}" if shape.numbered else ""
        own_id = f"({rules.literal(shape.id)} {rules.pattern(_ID)})?" if shape.id else ""
        named = f"{rules.literal(shape.prefix)} {rules.exactly(name)}{number} {own_id}"
        return f"{named} {rules.literal(shape.then)} {arguments}"

    def _tagged(self, shape: Tagged, name: str, schema: Schema, loose: bool) -> str:
        rules = self._rules
        called = f"{rules.literal(shape.name[0])} {rules.exactly(name)}"
        arguments = []
        needs_some = False
        for key, part, must in self._arguments(schema, loose):
            try:
                value = self._tagged_value(shape, part, schema)
            except (ValueError, TypeError):
                if not loose:
                    raise
                value = self._raw(shape, "")
            argument = rules.rule(f"{rules.literal(shape.key)} {key} {value}")
            arguments.append(argument if must else f"{argument}?")
            needs_some = needs_some or must
        head = f" {rules.pattern('[0-9]{1,4}')} ".join(map(rules.literal, shape.name[1].split("{n}")))
        whole = " ".join([head, *arguments, rules.literal(shape.end)])
        if shape.alone is not None and not needs_some:
            whole = rules.one_of([whole, rules.literal(shape.alone)])
        return f"{called} {whole}"

    def _tagged_value(self, shape: Tagged, schema: Any, root: Schema) -> str:
        """What follows a key: the value and its end."""
        rules = self._rules
        schema = _without_references(schema, root)
        if (strings := _strings(schema)) is not None:
            return self._raw(shape, "string", strings)
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        marks = [mark for mark, how in shape.values if how != "text"]
        marks = [mark for mark in marks if isinstance(kind, str) and f'"{kind}"' in mark] or marks
        value = rules.json(_with_definitions(schema, root))
        return f"{rules.one_of(map(rules.verbatim, marks))} {value} {rules.literal(shape.value_end)}"

    def _raw(self, shape: Tagged, kind: str, strings: list[str] | None = None) -> str:
        """Bare text up to its end, one of some if there are any."""
        rules = self._rules
        [mark, *_] = [mark for mark, how in shape.values if how != "json"]
        if strings:
            chosen = rules.one_of(map(rules.exactly, strings))
            return f"{rules.verbatim(mark)} {chosen} {rules.verbatim(shape.value_end)}"
        return f"{rules.literal(mark.rstrip())} {rules.until(shape.value_end)} {rules.space}"

    def _value(self, value: Values, schema: Any, loose: bool) -> str:
        try:
            return value.item(schema)
        except (ValueError, TypeError):
            if not loose:
                raise
            return value.anything()

    def _arguments(self, schema: Schema, loose: bool) -> Iterator[tuple[str, Any, bool]]:
        """The arguments: how each is named, its schema, and whether it must be there."""
        rules = self._rules
        known = schema if isinstance(schema, Mapping) else {}
        properties, required = known.get("properties") or {}, known.get("required") or ()
        others = sorted(known.keys() - {"type", "properties", "required", "additionalProperties"} - _DESCRIBING)
        if known.get("additionalProperties") and properties:
            others.append("additionalProperties")
        if others and not loose:
            raise UnenforceableError(f"{others[0]} in arguments that are not JSON")
        for name, part in properties.items():
            yield rules.exactly(name), part, name in required
        if others or not (properties or known.get("additionalProperties") is False or "properties" in known):
            for _ in range(_MOST_UNNAMED):
                yield rules.pattern(values.KEY), True, False


_MOST_UNNAMED = 8  # arguments that no schema names


def _without_references(schema: Any, root: Schema) -> Any:
    for _ in range(8):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            break
        schema = values.resolved(root, schema["$ref"])
    return schema


def _with_definitions(schema: Any, root: Schema) -> Schema:
    if not isinstance(schema, Mapping) or not isinstance(root, Mapping):
        return bool(schema) if not isinstance(schema, Mapping) else schema
    return {key: root[key] for key in ("$defs", "definitions") if key in root} | dict(schema)


def _strings(schema: Any) -> list[str] | None:
    """Those that a value written as bare text may be, none = all; None if it is no string.

    Raises:
        UnenforceableError: bare text cannot be held to it.
    """
    if schema is True or schema == {}:
        return []
    if not isinstance(schema, Mapping):
        return None
    for keyword in ("anyOf", "oneOf"):
        if any(_strings(part) is not None for part in schema.get(keyword, ())):
            return []  # whatever else it may be can be read from text too
    if "enum" in schema or "const" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return allowed if all(isinstance(value, str) for value in allowed) else None
    kind = schema.get("type")
    if kind != "string" and not (isinstance(kind, list) and "string" in kind):
        return None
    for keyword in ("pattern", "minLength", "maxLength", "allOf"):
        if keyword in schema:
            raise UnenforceableError(f"{keyword} in arguments that are not JSON")
    return []
