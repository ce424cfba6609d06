"""Real clients and libraries, unmodified, with a MaskProbeLlama or against the running server.

They are heavy, and their versions exclude each other: `.ci/clients` makes environments for them and runs these tests,
each in the environment that has its library. The default run collects none.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

REQUIRED = "MASKPROBE_TEST_CLIENTS"  # names the modules that this environment has the libraries for, by commas

_here = {f"test_{name}.py" for name in os.environ.get(REQUIRED, "").split(",")}
collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in _here]
if find_spec("openai") is not None:
    os.environ.setdefault("OPENAI_API_KEY", "none")  # some look for one before they are given theirs
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it is downloaded
