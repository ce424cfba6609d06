"""The command line: one module per command. Knows options and terminals; the work is done by the package."""

from __future__ import annotations

import sys

import typer

from ..errors import MaskProbeError
from . import bench, chat, doctor, generate, info, tune  # importing a command adds it to the app
from .app import app
from .options import notes


def main() -> None:
    """Entry point: errors of the package become one line and exit code 1, Ctrl-C exit code 130."""
    try:
        app(standalone_mode=False)
    except (MaskProbeError, ValueError, TypeError) as error:
        notes.print(f"maskprobe: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(1)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # click's usage errors
            error.show()
            sys.exit(error.exit_code)
        raise
    except KeyboardInterrupt:
        sys.exit(130)
