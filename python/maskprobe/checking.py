"""Checks of single values that users give: each returns the value, or raises an error that names it and its range."""

from __future__ import annotations

import math

import numpy as np


def checked_integer(name: str, value: object, low: int, high: int) -> int:
    """Checks an integer against a closed range; True and False are not integers here."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, got {value}")
    return int(value)


def checked_seed(seed: object) -> int:
    """Checks a seed; -1 becomes llama.cpp's default seed, with which it draws a random one."""
    return checked_integer("seed", seed, -1, 2**32 - 1) % 2**32


def checked_flag(name: str, value: object) -> bool:
    """Checks that a switch is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def checked_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """Checks a number against a closed range; NaN is out of every range."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (low <= value <= high and math.isfinite(value)):
        bounds = f"at least {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return float(value)
