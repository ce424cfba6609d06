"""Values of arguments in notations other than JSON's, by their schemas.

Knows the part of JSON Schema that says of what kinds a value is; leaves numbers, and JSON itself, to llguidance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...grammars.schemas import Schema
from .rules import Rules

_DESCRIBING = {"title", "description", "default", "examples", "format", "$schema", "$defs", "definitions", "$comment"}
_OF_KIND = {
    "string": set(),
    "boolean": set(),
    "null": set(),
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "array": {"items"},
    "object": {"properties", "required", "additionalProperties"},
}
_CHOICES = ("anyOf", "oneOf")
_SINGLE_QUOTED = r"'([^'\\\n]|\\['\"\\nrt])*'"  # a string of Python's, beside those that are JSON's too
KEY = "[A-Za-z_][A-Za-z0-9_.-]*"


class UnenforceableError(ValueError):
    """A schema asks for what a notation cannot be held to; the message names the keyword."""


@dataclass(frozen=True)
class Notation:
    """How values are written. quote: what stands on both sides of a string, "" = strings are Python's."""

    quote: str
    true: str
    false: str
    null: str
    bare_keys: bool


PYTHON = Notation("", "True", "False", "None", bare_keys=False)


def braced(quote: str) -> Notation:
    """Bare keys, and strings between two quotes."""
    return Notation(quote, "true", "false", "null", bare_keys=True)


class Values:
    """Makes rules of values.

    Args:
        root: the schema to which references refer.
    """

    def __init__(self, rules: Rules, notation: Notation, root: Schema) -> None:
        self._rules = rules
        self._notation = notation
        self._root = root
        self._references: dict[str, str] = {}
        self._anything: str | None = None

    def item(self, schema: Any) -> str:
        """A value that follows a schema.

        Raises:
            UnenforceableError: it asks for more than this notation can be held to.
        """
        if schema is True or schema == {}:
            return self.anything()
        if not isinstance(schema, Mapping):
            raise UnenforceableError(f"the schema {schema!r:.80} allows nothing")
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        for keyword in ("const", "enum"):
            if keyword in schema:
                values = schema["enum"] if keyword == "enum" else [schema["const"]]
                _check(schema, {keyword, "type"})
                return self._rules.one_of(map(self._written, values))
        for keyword in _CHOICES:
            if keyword in schema:
                _check(schema, {keyword})
                return self._rules.one_of(map(self.item, schema[keyword]))
        kinds = schema.get("type", [*_OF_KIND])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        _check(schema, {"type"}.union(*(_OF_KIND.get(kind, ()) for kind in kinds)))
        return self._rules.one_of(self._of_kind(kind, schema) for kind in kinds)

    def anything(self) -> str:
        """Any value."""
        if self._anything is None:
            self._anything = self._rules.reserve()
            kinds = [kind for kind in _OF_KIND if kind != "integer"]
            self._rules.define(self._anything, " | ".join(self._of_kind(kind, {}) for kind in kinds))
        return self._anything

    def _of_kind(self, kind: str, schema: Mapping[str, Any]) -> str:
        rules, notation = self._rules, self._notation
        if kind in ("integer", "number"):
            bounds = {key: schema[key] for key in _OF_KIND[kind] if key in schema}
            return rules.json({"type": kind, **bounds})
        if kind == "boolean":
            return rules.one_of([rules.exactly(notation.true), rules.exactly(notation.false)])
        if kind == "null":
            return rules.exactly(notation.null)
        if kind == "string":
            return self._string()
        separator = f'"," {rules.indent}'
        if kind == "array":
            item = self.item(schema.get("items", True))
            return rules.rule(f'"[" {rules.indent} ({item} ({separator} {item})*)? {rules.indent} "]"')
        if kind == "object":
            return rules.rule(f'"{{" {rules.indent} {self._members(schema, separator)} {rules.indent} "}}"')
        raise UnenforceableError(f"there is no type {kind!r:.80}")

    def _members(self, schema: Mapping[str, Any], separator: str) -> str:
        properties = schema.get("properties")
        others = schema.get("additionalProperties", not properties)
        if properties and others:
            raise UnenforceableError("additionalProperties beside properties")
        colon = f'":" {self._rules.indent}'
        if not properties:
            if others is False:
                return '""'
            member = f"{self._key(None)} {colon} {self.item(others)}"
            return self._rules.rule(f"({member} ({separator} {member})*)?")
        required = schema.get("required", ())
        parts = [
            (f"{self._key(name)} {colon} {self.item(part)}", name in required) for name, part in properties.items()
        ]
        return self._rules.listed(parts, separator)

    def _key(self, name: str | None) -> str:
        if self._notation.bare_keys:
            return self._rules.pattern(KEY) if name is None else self._rules.exactly(name)
        return self._string() if name is None else self._written(name)

    def _string(self) -> str:
        if self._notation is PYTHON:
            return self._rules.one_of([self._rules.json({"type": "string"}), self._rules.pattern(_SINGLE_QUOTED)])
        return f"{self._rules.literal(self._notation.quote)} {self._rules.until(self._notation.quote)}"

    def _written(self, value: Any) -> str:
        """One value."""
        rules, notation = self._rules, self._notation
        if isinstance(value, bool) or value is None:
            return rules.exactly(notation.null if value is None else notation.true if value else notation.false)
        if isinstance(value, str) and notation.quote:
            quote = rules.literal(notation.quote)
            return rules.rule(f"{quote} {rules.exactly(value)} {quote}")
        if isinstance(value, str):
            return rules.one_of([rules.exactly(json.dumps(value, ensure_ascii=False)), rules.exactly(repr(value))])
        if isinstance(value, (int, float)):
            return rules.exactly(json.dumps(value, ensure_ascii=False))
        raise UnenforceableError(f"enum with {value!r:.80}")

    def _reference(self, name: object) -> str:
        if not isinstance(name, str) or not name.startswith("#/"):
            raise UnenforceableError(f"$ref {name!r:.80}")
        if name not in self._references:
            self._references[name] = rule = self._rules.reserve()
            self._rules.define(rule, self.item(resolved(self._root, name)))
        return self._references[name]


def resolved(root: Schema, name: str) -> Any:
    """The part of a schema that a reference names."""
    found: Any = root
    for step in name.removeprefix("#/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or step not in found:
            raise UnenforceableError(f"$ref {name!r:.80}")
        found = found[step]
    return found


def _check(schema: Mapping[str, Any], known: set[str]) -> None:
    for keyword in schema:
        if keyword not in known | _DESCRIBING:
            raise UnenforceableError(f"{keyword} in arguments that are not JSON")
