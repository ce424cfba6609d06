"""maskprobe: local LLMs in fewer forward passes, with the same output.

>>> from maskprobe import MaskProbeLlama
>>> llm = MaskProbeLlama("model.gguf")  # doctest: +SKIP
>>> print(llm.generate("Explain why the sky is blue.").text)  # doctest: +SKIP

The method is training-free multi-token prediction by probing the embedding space: Goel, Gagrani, Lee,
Lott, ICML 2026, arXiv 2603.17942, cited as [ESP] in docstrings.
"""

from importlib.metadata import version as _version

__version__ = _version("maskprobe")

from .embedded import embedded_model
from .errors import (
    BindingError,
    BusyError,
    ClosedError,
    ContextError,
    DecodeError,
    HubError,
    MaskProbeError,
    ModelError,
    UnsupportedModelError,
)
from .llama import MaskProbeLlama
from .results import Chunk, Generation, Stats
from .speculation import Speculation

__all__ = [
    "BindingError",
    "BusyError",
    "Chunk",
    "ClosedError",
    "ContextError",
    "DecodeError",
    "Generation",
    "HubError",
    "MaskProbeError",
    "MaskProbeLlama",
    "ModelError",
    "Speculation",
    "Stats",
    "UnsupportedModelError",
    "embedded_model",
]
