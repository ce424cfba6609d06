"""Real clients and libraries, unmodified, with a MaskProbeLlama or against the running server.

They are heavy, and their versions exclude each other: `.ci/clients` makes environments for them and runs each module in
the one that has its library. The default run collects none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import ScriptedLlama, scripted

from maskprobe import MaskProbeLlama, Speculation

REQUIRED = "MASKPROBE_TEST_CLIENTS"  # the modules that this environment has the libraries for, by commas

_here = {f"test_{name}.py" for name in os.environ.get(REQUIRED, "").split(",")}
collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name not in _here]


@pytest.fixture(scope="session", autouse=True)
def _alone() -> Iterator[None]:
    """No client asks the network for anything but the server, or for a key."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "LANGSMITH_TRACING": "false",
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_API_KEY": "none",
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def drop_in(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    """What is given to libraries in place of a llama_cpp.Llama."""
    with MaskProbeLlama(model_path("Q4_1"), n_ctx=1024, n_threads=1, speculation=Speculation(budget=8)) as llm:
        yield llm


@pytest.fixture(scope="session")
def _scripted() -> Iterator[tuple[ScriptedLlama, str]]:
    with scripted() as both:
        yield both


@pytest.fixture
def model(_scripted: tuple[ScriptedLlama, str]) -> ScriptedLlama:
    """The served model, with an empty script."""
    _scripted[0].says()
    return _scripted[0]


@pytest.fixture(scope="session")
def server(_scripted: tuple[ScriptedLlama, str]) -> str:
    """Where it is served."""
    return _scripted[1]
