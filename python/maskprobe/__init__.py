"""maskprobe: local LLMs in fewer forward passes, with the same output.

>>> from maskprobe import MaskProbeLlama
>>> llm = MaskProbeLlama("model.gguf")  # doctest: +SKIP
>>> print(llm.generate("Explain why the sky is blue.").text)  # doctest: +SKIP

The method is training-free multi-token prediction by probing the embedding space: Goel, Gagrani, Lee,
Lott, ICML 2026, arXiv 2603.17942, cited as [ESP] in docstrings.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

__version__ = _version("maskprobe")

if TYPE_CHECKING:
    from .errors import (
        BindingError,
        BusyError,
        ClosedError,
        ContextError,
        DecodeError,
        ForkError,
        HubError,
        MaskProbeError,
        ModelError,
        RpcError,
        SamplingError,
        StateError,
        UnsupportedModelError,
    )
    from .hub.embedded import embedded_model
    from .llama import MaskProbeLlama
    from .results import Chunk, Drafting, Finished, Generation, Stats, TokenLogprobs
    from .speculation import Speculation

# Names are imported when they are first used: llama.cpp is loaded by those who need it, and a broken installation
# of it can still be diagnosed.
_MODULES = {
    "errors": (
        "BindingError",
        "BusyError",
        "ClosedError",
        "ContextError",
        "DecodeError",
        "ForkError",
        "HubError",
        "MaskProbeError",
        "ModelError",
        "RpcError",
        "SamplingError",
        "StateError",
        "UnsupportedModelError",
    ),
    "hub.embedded": ("embedded_model",),
    "llama": ("MaskProbeLlama",),
    "results": ("Chunk", "Drafting", "Finished", "Generation", "Stats", "TokenLogprobs"),
    "speculation": ("Speculation",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BindingError",
    "BusyError",
    "Chunk",
    "ClosedError",
    "ContextError",
    "DecodeError",
    "Drafting",
    "Finished",
    "ForkError",
    "Generation",
    "HubError",
    "MaskProbeError",
    "MaskProbeLlama",
    "ModelError",
    "RpcError",
    "SamplingError",
    "Speculation",
    "StateError",
    "Stats",
    "TokenLogprobs",
    "UnsupportedModelError",
    "embedded_model",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
