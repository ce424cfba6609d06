"""The command line: one module per command. Knows options and terminals; the work is done by the package."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable

import typer

from ..errors import MaskProbeError
from .app import app
from .options import note, warn
from .terminal import BROKEN_PIPE, forget_output, prepare

COMMANDS = ("generate", "chat", "race", "serve", "batch", "models", "info", "doctor", "bench", "tune")

broken: MaskProbeError | None = None  # why the commands cannot be imported
try:
    for _command in COMMANDS:  # importing one adds it to the app
        importlib.import_module(f".{_command}", __name__)
except MaskProbeError as error:
    broken = error


def main(run: Callable[..., object] = app) -> None:
    """Entry point: errors of the package and of files become one line and exit code 1, Ctrl-C exit code 130."""
    # Asked to end, Python unwinds as it does for Ctrl-C: child processes are stopped, files are closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    prepare()
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    try:
        if broken is not None:
            raise broken
        run(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        forget_output()  # it may be the output that is full
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        note(f"maskprobe: {name}{error.strerror or error}", style="red")
        sys.exit(1)
    except (MaskProbeError, ValueError, TypeError) as error:
        note(f"maskprobe: {error}", style="red")
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
