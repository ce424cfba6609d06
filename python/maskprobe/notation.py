"""Speculation settings as text, for the command line and for result files."""

from __future__ import annotations

from typing import Any

from .speculation import Speculation

_READERS: dict[str, Any] = {
    "masks": int,
    "block": int,
    "update": float,
    "probe": str,
    "prune": lambda text: {"true": True, "false": False}[text.lower()],
    "tree": lambda text: text if text.isalpha() else tuple(int(width) for width in text.split("x")),
    "sources": lambda text: tuple(text.split("+")),
    "budget": lambda text: text if text == "auto" else int(text),
    "cost": lambda text: {int(rows): float(cost) for rows, cost in (point.split(":") for point in text.split("/"))},
}


_NAMES = {"cost": "cost_curve"}


def parse_speculation(text: str) -> Speculation:
    """Reads ``"masks=2,tree=15x4,probe=prompt-mean"``, ``"budget=10"``, ``"cost=1:1/8:1.5/60:3"``,
    ``"sources=ngrams+adjacency"`` or ``"paper-30"``; empty text is the default.

    Raises:
        ValueError: a name is unknown or a value does not fit it.
    """
    if text.startswith("paper-"):
        return Speculation.paper(_read("block", int, text.removeprefix("paper-")))
    options = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in _READERS:
            raise ValueError(f"unknown speculation setting {name!r}; choose from {', '.join(_READERS)} or paper-30")
        options[_NAMES.get(name, name)] = _read(name, _READERS[name], value)
    return Speculation(**options)


def _read(name: str, reader: Any, value: str) -> Any:
    try:
        return reader(value)
    except (KeyError, ValueError) as error:
        raise ValueError(f"speculation setting {name}={value!r} cannot be read") from error
