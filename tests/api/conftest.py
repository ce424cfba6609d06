"""What the drop-in is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp
import pytest


@pytest.fixture(scope="module")
def stock(model_path: Callable[[str], Path]) -> Iterator[llama_cpp.Llama]:
    """llama-cpp-python on the Q4_0 model, flash attention on as ours is."""
    llama = llama_cpp.Llama(
        str(model_path("Q4_0")), n_ctx=1024, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
    )
    yield llama
    llama.close()
