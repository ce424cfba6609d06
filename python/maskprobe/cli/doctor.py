"""``maskprobe doctor``: does this installation work, and does this machine gain from drafts?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from .app import app
from .check import Check
from .checks import all_checks
from .groups import grouped
from .loading import Machine
from .options import ModelOption, tables
from .terminal import pipes, write

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@app.command()
@grouped
def doctor(
    *,
    model: ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    machine: Machine,
) -> None:
    """Check the installation and the machine; exit code 1 if something does not work."""
    console = tables()
    done: list[Check] = []
    with pipes():
        for check in all_checks(
            model, machine.n_threads, machine.n_gpu_layers, machine.rpc, kernels=machine.cpu_kernels
        ):
            done.append(check)
            if not as_json:
                _show(console, check)
        usable = all(check.status != "problem" for check in done)
        if as_json:
            write(json.dumps({"usable": usable, "checks": [asdict(check) for check in done]}, indent=2) + "\n")
    if not usable:
        sys.exit(1)


def _show(console: Console, check: Check) -> None:
    console.print(f"{check.status:8}", style=_STYLES[check.status], end="")
    console.print(f"{check.name}: {check.found}", soft_wrap=True, markup=False, highlight=False)
    if check.remedy is not None:
        console.print(f"{'':8}-> {check.remedy}", soft_wrap=True, markup=False, highlight=False)
