"""The catalogue: short names of models that are known to suit, read from the package's models/catalog.toml."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue."""

    name: str
    repo: str | None  # None = the embedded model
    quant: str  # the one that the name means
    parameters: float  # in billions
    gigabytes: float | None  # the file's size, None = not known
    architecture: str  # as GGUF files call it
    licence: str
    drafts: str  # "trees", or "chains" where it keeps a recurrent state


@cache
def entries() -> tuple[Entry, ...]:
    """All models, in the catalogue's order."""
    return read((files("maskprobe") / "models" / "catalog.toml").read_text(encoding="utf-8"))


def read(text: str) -> tuple[Entry, ...]:
    """The models of a catalogue's text.

    Raises:
        ValueError: it is no TOML, or an entry lacks something or has too much.
    """
    return tuple(_entry(table) for table in tomllib.loads(text).get("model", ()))


def _entry(table: dict[str, Any]) -> Entry:
    try:
        return Entry(**{"repo": None, "gigabytes": None, "drafts": "trees"} | table)
    except TypeError as error:
        raise ValueError(f"catalogue entry {table.get('name')!r}: {error}") from error


def find(name: str) -> Entry | None:
    """The model with a name, in upper or lower case."""
    return next((entry for entry in entries() if entry.name == name.lower()), None)


def close_names(name: str) -> list[str]:
    """Names that one may have meant."""
    return get_close_matches(name.lower(), [entry.name for entry in entries()], n=2)
