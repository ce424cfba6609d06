"""Helpers of OpenMP's: whoever has computed lets them go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maskprobe.llamacpp.installed import function_address

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc"),
    pytest.mark.skipif(not function_address("omp_pause_resource_all"), reason="this ggml was built without OpenMP"),
]


# In a process of its own, where no other test's threads come and go. Prints how many more threads there are: after the
# load, within a generation, after it, and after one in another thread, which counts that thread.
PROGRAM = """
import os, sys, threading
from maskprobe import MaskProbeLlama

def n_more():
    return len(os.listdir("/proc/self/task")) - before

before = 0
before = n_more()
with MaskProbeLlama(sys.argv[1], n_ctx=256, n_threads=2) as llm:
    print(n_more())
    stream = llm.stream("the tree of the sea", max_tokens=8)
    next(stream)
    print(n_more())
    stream.close()
    print(n_more())

    def generate():
        llm.generate("the tree of the sea", max_tokens=8)
        print(n_more())

    thread = threading.Thread(target=generate)
    thread.start()
    thread.join()
"""


def test_no_helpers_stay(tiny_path: Callable[[str], Path]) -> None:
    """Two threads with helpers of their own would be in each other's way."""
    command = [sys.executable, "-c", PROGRAM, str(tiny_path("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["0", "1", "0", "1"], done.stderr
