"""Chat templates: Jinja programs in model files that turn messages into a prompt.

Renders them as transformers does, in a sandbox, and where a template asks for what is not there, forgivingly. Knows
Jinja; leaves time limits to formats, and what messages a template takes to shapes and probing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import ChainableUndefined, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

# What a template's author relies on; a request that set them would speak in its place.
RESERVED = frozenset(
    ("messages", "tools", "functions", "tool_choice", "add_generation_prompt", "bos_token", "eos_token")
)


class Template:
    """A chat template.

    Args:
        text: its source.
        bos, eos: what its bos_token and eos_token stand for.

    Raises:
        ValueError: it is no Jinja template.
    """

    def __init__(self, text: str, bos: str = "", eos: str = "") -> None:
        try:
            self._template = _environment().from_string(text)
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno}: {error.message}") from error
        self.text = text
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def render(self, **variables: Any) -> str:
        """The text that it makes. The values stay as they are; whatever its program raises comes through."""
        return self._template.render(copy.deepcopy(variables) | self._tokens)


class _Missing(ChainableUndefined):
    """What a template names and nobody gave: nothing, also when it is added to a text."""

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__


class _Generation(Extension):
    """``{% generation %}``, with which transformers marks an assistant's text: the text alone."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> SandboxedEnvironment:
    """A sandbox in which templates may change lists: some do, and what they are given are copies."""
    environment = SandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=_Missing,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: Jinja's own filter escapes what HTML would misread."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_plain
    )


def _plain(value: Any) -> Any:
    """What JSON has no word for: something missing, and what filters such as map leave behind."""
    if isinstance(value, _Missing):
        return None
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
