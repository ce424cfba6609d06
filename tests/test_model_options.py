"""Options of loading: adapters, threads and switches reach llama.cpp, and bad ones are refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
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


def test_threads_and_switches(tiny_path: Callable[[str], Path]) -> None:
    with load(tiny_path("llama"), n_threads_batch=2, use_mlock=False, offload_kqv=False, tensor_split=[1.0]) as llm:
        assert llm.n_threads() == 1
        assert llama_cpp.llama_n_threads_batch(llm._model.ctx) == 2
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
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, tiny_path: Callable[[str], Path]
) -> None:
    with pytest.raises(error, match=message):
        load(tiny_path("llama"), **options)
