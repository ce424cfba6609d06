"""Helpers of OpenMP's: whoever has computed lets them go."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from maskprobe import MaskProbeLlama
from maskprobe.llamacpp.installed import function_address

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc"),
    pytest.mark.skipif(not function_address("omp_pause_resource_all"), reason="this ggml was built without OpenMP"),
]


def n_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_no_helpers_stay(tiny_path: Callable[[str], Path]) -> None:
    """Two threads with helpers of their own would be in each other's way."""
    before = n_threads()
    with MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_threads=2) as llm:
        assert n_threads() == before
        stream = llm.stream("the tree of the sea", max_tokens=8)
        next(stream)
        assert n_threads() == before + 1
        stream.close()
        assert n_threads() == before
        counts: list[int] = []

        def generate() -> None:
            llm.generate("the tree of the sea", max_tokens=8)
            counts.append(n_threads())

        thread = threading.Thread(target=generate)
        thread.start()
        thread.join()
        assert counts == [before + 1]  # that thread itself
