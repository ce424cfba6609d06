"""JSON schemas as grammars of llguidance's. Knows which keywords only describe; what cannot be enforced is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llguidance import LLMatcher

Schema = Mapping[str, Any] | bool

# What a model may put between two things: a space, or a new line and its indent. Without an end to it, small models go
# on with it for ever.
_WHITE_SPACE = r"( |\r?\n[ \t]{0,40})"
# A format describes unless a reader knows it, says JSON Schema. These are enforced.
_FORMATS = ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
# Where schemas stand in schemas.
_SCHEMA = ("additionalProperties", "items", "additionalItems")
_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_COMBINING = ("$ref", "allOf", "anyOf", "oneOf")


def grammar_of_schema(schema: Schema) -> str:
    """JSON that follows a schema, as a grammar in llguidance's notation.

    Raises:
        ValueError, TypeError: as :func:`item_of_schema` does.
    """
    return f"start: {item_of_schema(schema)}\n"


def item_of_schema(schema: Schema) -> str:
    """JSON that follows a schema, as one item of a rule in llguidance's notation.

    Raises:
        ValueError, TypeError: it is no schema, or something in it cannot be enforced; the message names it.
    """
    if not isinstance(schema, (Mapping, bool)):
        raise TypeError(f"a JSON schema is an object, true or false, got {schema!r:.80}")
    if schema is False:
        raise ValueError("the JSON schema false allows nothing")
    try:
        rules = {} if schema is True else _enforceable(schema)
        if not any(map(_combines, _schemas_in(rules))):
            for part in _schemas_in(rules):
                _close(part)
        text = json.dumps(rules | {"x-guidance": {"whitespace_pattern": _WHITE_SPACE}}, allow_nan=False)
    except RecursionError:
        raise ValueError("the JSON schema is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"the JSON schema is no JSON: {error}") from error
    try:
        _, found = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_json_schema(text))
    except ValueError as error:  # it cannot even be read
        found = [str(error)]
    if found:
        raise ValueError(f"the JSON schema cannot be enforced: {' '.join(found[0].split())}")
    return f"%json {text}"


def _enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what allows everything, or only describes."""
    rules = dict(schema)
    if isinstance(name := rules.get("format"), str) and name not in _FORMATS:
        del rules["format"]
    if rules.get("uniqueItems") is False:
        del rules["uniqueItems"]
    rules.pop("x-guidance", None)  # llguidance's options are not the schema's to choose
    for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(rules.get(keyword), bool):
            raise ValueError(f"{keyword} must be a number")
    for keywords, replace in ((_SCHEMA, _one), (_SCHEMAS, _listed), (_NAMED_SCHEMAS, _named)):
        rules |= {keyword: replace(rules[keyword]) for keyword in keywords if keyword in rules}
    return rules


def _close(schema: dict[str, Any]) -> None:
    """Allows only the properties that the schema names, unless it says otherwise: small models find no end else."""
    properties, required = schema.get("properties"), schema.get("required", [])
    named = isinstance(properties, dict) and isinstance(required, list) and all(name in properties for name in required)
    if named and "patternProperties" not in schema:
        schema.setdefault("additionalProperties", False)


def _combines(schema: dict[str, Any]) -> bool:
    """Whether properties of one object may be named in several schemas."""
    combining = [keyword for keyword in _COMBINING if keyword in schema]
    return len(combining) + ("properties" in schema) > 1 or len(schema.get("allOf", ())) > 1


def _schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in {*_SCHEMA, *_SCHEMAS, *_NAMED_SCHEMAS} & schema.keys():
        parts = schema[keyword]
        named = isinstance(parts, dict) and keyword in _NAMED_SCHEMAS
        for part in parts.values() if named else parts if isinstance(parts, list) else [parts]:
            yield from _schemas_in(part)


def _one(schema: Any) -> Any:
    return _enforceable(schema) if isinstance(schema, Mapping) else schema


def _listed(schemas: Any) -> Any:
    return [_one(schema) for schema in schemas] if isinstance(schemas, list) else schemas


def _named(schemas: Any) -> Any:
    return {name: _one(schema) for name, schema in schemas.items()} if isinstance(schemas, Mapping) else schemas
