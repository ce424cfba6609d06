"""What the self-test says of the kernels: run in a process of its own, which may crash, and remembered.

The verdict belongs to a combination of ggml's library, ours, the processor and the self-test itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import cache
from ..core.kernels import LIBRARY
from ..llamacpp.installed import library_of
from . import self_test

VARIABLE = "MASKPROBE_CPU_KERNELS"  # 0 = llama.cpp's own alone
_CHECK_SECONDS = 60.0
# With the paths of this process for its own: a folder it happens to stand in, or an option of Python, changes nothing.
_CHECK = "import sys; sys.path[:] = sys.argv[2:]; from maskprobe.cpu_kernels.self_test import main; main(sys.argv[1])"
# What a process does to itself; other signals come from outside and say nothing of the kernels.
_FAULTS = {getattr(signal, name, None) for name in ("SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT")}


def of_self_test(instructions: str) -> self_test.Verdict | str:
    """What it says of each kernel, or why there is no saying; from the cache if this was checked before."""
    name = f"cpu-kernels-{_combination(instructions)}"
    stored = cache.load_shared_json(name)
    if isinstance(stored, str):
        return stored
    if (known := _parsed(stored)) is not None:
        return known
    try:
        done = _run_check(instructions)
    except (OSError, subprocess.TimeoutExpired) as error:  # may be different next time
        return f"the check of the kernels could not be run to its end ({error})"
    verdict = _read(done)
    cache.store_shared_json(name, dataclasses.asdict(verdict) if isinstance(verdict, self_test.Verdict) else verdict)
    return verdict


def _run_check(instructions: str) -> subprocess.CompletedProcess[str]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("this program is no Python that could run it")
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, instructions, *(path for path in sys.path if isinstance(path, str))],
        # A program that is no Python after all must not start another; threads that spin make a busy machine crawl.
        env={**os.environ, VARIABLE: "0", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_CHECK_SECONDS,
    )
    if done.returncode < 0 and -done.returncode not in _FAULTS:
        raise OSError(f"it was ended by signal {-done.returncode}")
    return done


def _read(done: subprocess.CompletedProcess[str]) -> self_test.Verdict | str:
    if done.returncode < 0:
        return f"the check of the kernels was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines() or ["nothing"]
    if done.returncode != 0:
        return f"the check of the kernels failed with code {done.returncode} and said: {lines[-1]}"
    try:
        found = _parsed(json.loads(done.stdout))
    except ValueError:
        found = None
    return found or f"the check of the kernels said nothing that can be read: {done.stdout[:200]!r}"


def _parsed(found: Any) -> self_test.Verdict | None:
    """A verdict as the check prints it, None if it is none."""
    try:
        differences = {str(name): None if why is None else str(why) for name, why in found["differences"].items()}
        return self_test.Verdict(differences, tuple(str(name) for name in found["for_prompts"]))
    except (TypeError, AttributeError, KeyError):
        return None


def _combination(instructions: str) -> str:
    """Names what the verdict depends on: ggml's library, ours, the processor and the check itself."""
    digest = hashlib.sha256()
    for path in (library_of("ggml_barrier"), LIBRARY):
        digest.update(path.read_bytes() if path is not None else b"?")
    for part in (_processor(), instructions, str(self_test.FORMAT)):
        digest.update(part.encode(errors="replace") + b"\0")
    return digest.hexdigest()[:24]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = ("model name", "flags", "CPU ", "Features")  # x86's, then ARM's
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))
