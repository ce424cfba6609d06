"""The names and signatures that users build on."""

from __future__ import annotations

import dataclasses
import inspect
from importlib.metadata import requires, version
from importlib.resources import files

import maskprobe
from maskprobe import MaskProbeLlama
from maskprobe.generation.sampling import Sampling
from maskprobe.llama import Options
from maskprobe.llamacpp.installed import requirement


def test_names() -> None:
    assert set(maskprobe.__all__) == {
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
    }
    for name in maskprobe.__all__:
        assert getattr(maskprobe, name).__doc__
    assert maskprobe.__version__ == version("maskprobe")
    assert files("maskprobe").joinpath("py.typed").is_file()
    assert files("maskprobe").joinpath("models", "README.md").is_file()


def test_constructor_defaults() -> None:
    parameters = inspect.signature(MaskProbeLlama.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert {name: defaults[name] for name in ("n_ctx", "n_batch", "n_threads", "n_gpu_layers", "flash_attn")} == {
        "n_ctx": 4096,
        "n_batch": 512,
        "n_threads": None,
        "n_gpu_layers": 0,
        "flash_attn": True,
    }
    assert {"seed", "type_k", "type_v", "use_mmap", "speculation", "verbose"} <= set(defaults)


def test_generate_and_stream_take_the_same_options() -> None:
    parameters = inspect.signature(MaskProbeLlama.stream).parameters
    options = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    options |= {field.name: field.default for field in dataclasses.fields(Sampling)}
    assert set(options) == set(Options.__annotations__)
    assert (options["max_tokens"], options["temperature"], options["top_k"], options["top_p"]) == (256, 0.8, 40, 0.95)
    assert (options["min_p"], options["repeat_penalty"], options["seed"], options["stop"]) == (0.05, 1.0, None, None)


def test_the_oldest_version_that_is_accepted_is_said_once() -> None:
    declared = next(r for r in requires("maskprobe") or [] if r.startswith("llama-cpp-python"))
    assert declared == requirement().split(",")[0]
