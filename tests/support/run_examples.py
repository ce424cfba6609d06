"""The programs in docs/examples, run as their readers do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
NOBODY = "http://127.0.0.1:9"
SECONDS = 240


def printed(name: str, server: str = NOBODY) -> str:
    """What an example prints. server: where OPENAI_BASE_URL points."""
    env = os.environ | {"OPENAI_BASE_URL": f"{server}/v1", "OPENAI_API_KEY": "none", "PYTHONIOENCODING": "utf-8"}
    env["OMP_WAIT_POLICY"] = "passive"  # other tests run beside: threads that spin while they wait take their time
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
