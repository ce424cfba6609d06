"""Commands as they are typed into the shell of this system: PowerShell on Windows, sh elsewhere."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_POWERSHELL = sys.platform == "win32"


def with_variable(name: str, value: str, command: str) -> str:
    """The command with an environment variable."""
    return f'$env:{name} = "{value}"; {command}' if _POWERSHELL else f'{name}="{value}" {command}'


def set_variable(name: str, value: str) -> str:
    """Sets an environment variable for the commands that follow."""
    return f'$env:{name} = "{value}"' if _POWERSHELL else f"export {name}={shlex.quote(value)}"


def unset_variables(names: Sequence[str]) -> str:
    """Takes environment variables away from the commands that follow."""
    return f"Remove-Item {', '.join(f'Env:{name}' for name in names)}" if _POWERSHELL else f"unset {' '.join(names)}"


def add_to_path(folder: Path) -> str:
    """Has the commands that follow found in a folder too."""
    return f'$env:PATH = "{folder};$env:PATH"' if _POWERSHELL else f'export PATH="{folder}:$PATH"'


def quote(argument: str) -> str:
    """An argument of a command, in quotation marks where it needs them."""
    if not _POWERSHELL:
        return shlex.quote(argument)
    return "'" + argument.replace("'", "''") + "'" if set(argument) & set(" '\"$`;&|()@#") else argument
