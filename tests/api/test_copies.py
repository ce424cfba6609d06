"""A loaded model is not copied, and says so; it goes on."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskprobe import MaskProbeLlama, Speculation

WAYS: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickle.dumps, lambda llm: copy.deepcopy({"llm": llm})]


def test_a_model_is_not_copied(tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        for duplicate in WAYS:
            with pytest.raises(TypeError, match=r"cannot be copied or pickled, got llama\.gguf; use the same object"):
                duplicate(llm)
        gc.collect()  # half a copy would complain when it goes
        assert len(llm.generate("still there", max_tokens=2, temperature=0.0).tokens) == 2
