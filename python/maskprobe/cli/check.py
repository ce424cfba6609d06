"""One line of what `maskprobe doctor` reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REPORT = "maskprobe doctor --json"  # for faults that no command mends: what it prints belongs into a report


@dataclass(frozen=True)
class Check:
    """A warning costs speed or comfort; with a problem, something does not work.

    The remedy is one command, for the shell of this system. What follows a # is a remark, which shells skip.
    """

    name: str
    status: Literal["ok", "warning", "problem"]
    found: str
    remedy: str | None = None
