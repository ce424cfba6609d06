"""Options of loading: adapters, threads and switches reach llama.cpp, and bad ones are refused."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

import tiny_models
from maskprobe import MaskProbeLlama, ModelError, Speculation

PROMPT = list(range(5, 40))
DRAFTING = Speculation(budget=12)


def load(path: Path, **options: Any) -> MaskProbeLlama:
    return MaskProbeLlama(path, n_ctx=512, n_threads=1, speculation=DRAFTING, **options)


def test_a_lora_adapter_is_llama_cpp_pythons(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    path, adapter = tiny_path("llama"), tiny_models.make_lora(tmp_path / "lora.gguf")
    stock = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, flash_attn=True, lora_path=str(adapter), verbose=False)
    expected = list(itertools.islice(stock.generate(PROMPT, temp=0.0), 24))
    stock.close()
    outs = {}
    for scale in (0.0, 1.0):
        with load(path, lora_path=adapter, lora_scale=scale) as llm:
            assert llm.why_plain is None
            outs[scale] = llm.generate(PROMPT, max_tokens=24, temperature=0.0).tokens
    with load(path) as llm:
        assert llm.generate(PROMPT, max_tokens=24, temperature=0.0).tokens == outs[0.0]
    assert outs[1.0] == expected
    assert outs[1.0] != outs[0.0]


def test_a_wrong_adapter_is_named(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    path = tiny_path("llama")
    with pytest.raises(ModelError, match=r"no-such\.gguf does not exist"):
        load(path, lora_path=tmp_path / "no-such.gguf")
    with pytest.raises(ModelError, match="LoRA adapter"):
        load(path, lora_path=path)


@pytest.fixture
def directions() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(1)
    layers = range(1, tiny_models.N_LAYER)
    return {layer: rng.normal(size=tiny_models.N_EMBD).astype(np.float32) for layer in layers}


def stock_answer(path: Path, directions: dict[int, np.ndarray], scale: float, layers: tuple[int, int]) -> list[int]:
    """The answer of llama_cpp alone with a control vector."""
    stock = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, flash_attn=True, verbose=False)
    data = np.concatenate([directions[layer] * np.float32(scale) for layer in sorted(directions)])
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    assert llama_cpp.llama_set_adapter_cvec(stock.ctx, pointer, data.size, tiny_models.N_EMBD, *layers) == 0
    tokens = list(itertools.islice(stock.generate(PROMPT, temp=0.0), 24))
    stock.close()
    return tokens


def test_a_control_vector_is_llama_cpps(
    tiny_path: Callable[[str], Path], tmp_path: Path, directions: dict[int, np.ndarray]
) -> None:
    path = tiny_path("llama")
    vector = tiny_models.make_control_vector(tmp_path / "vector.gguf", directions)
    with load(path) as llm:
        without = llm.generate(PROMPT, max_tokens=24, temperature=0.0).tokens
    answers = [without]
    for scale, layers in ((1.0, None), (-2.0, (1, 1))):
        with load(path, control_vector=vector, control_vector_scale=scale, control_vector_layer_range=layers) as llm:
            out = llm.generate(PROMPT, max_tokens=24, temperature=0.0, cache_prompt=False)
            plain = llm.generate(PROMPT, max_tokens=24, temperature=0.0, speculate=False, cache_prompt=False)
        assert out.stats.draft_n > 0
        assert out.tokens == plain.tokens == stock_answer(path, directions, scale, layers or (1, tiny_models.N_LAYER))
        assert out.tokens not in answers
        answers.append(out.tokens)
    behind = (tiny_models.N_LAYER, tiny_models.N_LAYER)  # where llama.cpp adds nothing
    with load(path, control_vector=vector, control_vector_layer_range=behind) as llm:
        assert llm.generate(PROMPT, max_tokens=24, temperature=0.0).tokens == without


def test_a_wrong_control_vector_is_named(
    tiny_path: Callable[[str], Path], tmp_path: Path, directions: dict[int, np.ndarray]
) -> None:
    path, width = tiny_path("llama"), tiny_models.N_EMBD
    wrong = {
        "is of another model: direction.1 has the shape": {1: np.zeros(width + 1, np.float32)},
        f"direction.{tiny_models.N_LAYER + 1} has the shape": {tiny_models.N_LAYER + 1: np.zeros(width, np.float32)},
        "its tensor direction.0 is no direction": {0: np.zeros(width, np.float32)},
        "no direction.N of F32": {1: np.zeros(width, np.float16)},
        "is cut or no number": {1: np.full(width, np.nan, np.float32)},
        "has no tensors": {},
    }
    for i, (message, tensors) in enumerate(wrong.items()):
        file = tiny_models.make_control_vector(tmp_path / f"{i}.gguf", tensors)
        with pytest.raises(ModelError, match=message):
            load(path, control_vector=file)
    good = tiny_models.make_control_vector(tmp_path / "good.gguf", directions)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[: -2 * width])
    with pytest.raises(ModelError, match=r"cut\.gguf is damaged: direction"):
        load(path, control_vector=cut)
    with pytest.raises(ModelError, match="is no direction"):
        load(path, control_vector=path)
    with pytest.raises(ModelError, match=r"no-such\.gguf does not exist"):
        load(path, control_vector=tmp_path / "no-such.gguf")
    with pytest.raises(ValueError, match=f"the model has {tiny_models.N_LAYER} layers"):
        load(path, control_vector=good, control_vector_layer_range=(1, tiny_models.N_LAYER + 1))


def test_threads_and_switches(tiny_path: Callable[[str], Path]) -> None:
    with load(tiny_path("llama"), n_threads_batch=2, use_mlock=False, offload_kqv=False, tensor_split=[1.0]) as llm:
        assert llm.n_threads() == 1
        assert llama_cpp.llama_n_threads_batch(llm.engine.model.ctx) == 2
        assert llm.metadata["general.architecture"] == "llama"
    expected = {}
    for scale in (0.0, 0.5):
        with load(tiny_path("llama"), rope_freq_scale=scale) as llm:
            expected[scale] = llm.generate(PROMPT, max_tokens=16, temperature=0.0).tokens
    assert expected[0.0] != expected[0.5]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_threads_batch": 0}, ValueError, "n_threads_batch"),
        ({"split_mode": 9}, ValueError, "split_mode"),
        ({"main_gpu": -1}, ValueError, "main_gpu"),
        ({"tensor_split": [1.0] * 1000}, ValueError, "tensor_split"),
        ({"tensor_split": ["x"]}, TypeError, "tensor_split"),
        ({"use_mlock": 1}, TypeError, "use_mlock"),
        ({"flash_attn": "on"}, TypeError, "flash_attn"),
        ({"rope_freq_base": -1.0}, ValueError, "rope_freq_base"),
        ({"lora_path": "x.gguf", "lora_scale": "much"}, TypeError, "lora_scale"),
        ({"control_vector": "x.gguf", "control_vector_scale": "much"}, TypeError, "control_vector_scale"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": (2, 1)}, ValueError, "layer_range"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": (0, 1)}, ValueError, "layer_range"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": 1}, TypeError, "layer_range"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, tiny_path: Callable[[str], Path]
) -> None:
    with pytest.raises(error, match=message):
        load(tiny_path("llama"), **options)
