"""Options of loading: adapters, threads and switches reach llama.cpp, and bad ones are refused."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
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
            assert llm.drafting.masks
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


WIDTH, RANK = tiny_models.N_EMBD, 2
GOOD_KEYS = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 2.0}
EMBEDDINGS, QUERIES = "token_embd.weight", "blk.0.attn_q.weight"


def make_lora(path: Path, name: str, a: np.ndarray, b: np.ndarray, **keys: Any) -> Path:
    """An adapter for one tensor."""
    writer = gguf.GGUFWriter(path, keys.pop("general.architecture", "llama"))
    for key, value in (GOOD_KEYS | keys).items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(key, value)
    writer.add_tensor(f"{name}.lora_a", a)
    writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


# On most of these llama.cpp would end the process.
LORA_FAULTS: list[tuple[str, str, np.ndarray, np.ndarray, dict[str, Any]]] = [
    ("general.type is no text", QUERIES, ones(RANK, WIDTH), ones(WIDTH, RANK), {"general.type": 1}),
    ("adapter.type is no text", QUERIES, ones(RANK, WIDTH), ones(WIDTH, RANK), {"adapter.type": 1}),
    ("alpha is no F32 number", QUERIES, ones(RANK, WIDTH), ones(WIDTH, RANK), {"adapter.lora.alpha": 2}),
    ("lora_a is not F32 or", QUERIES, ones(RANK, WIDTH, dtype=np.int32), ones(WIDTH, RANK), {}),
    ("lora_b is not F32 or", QUERIES, ones(RANK, WIDTH), ones(WIDTH, RANK, dtype=np.float64), {}),
    (r"lora_a has the shape \[64, 2, 3\]", QUERIES, ones(3, RANK, WIDTH), ones(WIDTH, RANK), {}),
    (r"lora_a has the shape \[64, 0\]", QUERIES, ones(0, WIDTH), ones(WIDTH, 0), {}),
    (r"lora_b has the shape \[2, 64, 3\]", QUERIES, ones(RANK, WIDTH), ones(3, WIDTH, RANK), {}),
    ("have different ranks", EMBEDDINGS, ones(tiny_models.N_VOCAB, RANK), ones(WIDTH, RANK + 1), {}),
    ("is the model's output too", EMBEDDINGS, ones(tiny_models.N_VOCAB, RANK), ones(WIDTH, RANK), {}),
]


@pytest.mark.parametrize("fault", LORA_FAULTS, ids=lambda fault: fault[0])
def test_adapters_that_llama_cpp_would_not_survive_are_refused(
    fault: tuple[str, str, np.ndarray, np.ndarray, dict[str, Any]], tiny_path: Callable[[str], Path], tmp_path: Path
) -> None:
    message, name, a, b, keys = fault
    with pytest.raises(ModelError, match=rf"bad\.gguf cannot be used: its? .*{message}"):
        load(tiny_path("llama"), lora_path=make_lora(tmp_path / "bad.gguf", name, a, b, **keys))


def test_adapters_of_embeddings_and_experts_work(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    embeddings = make_lora(tmp_path / "e.gguf", EMBEDDINGS, ones(tiny_models.N_VOCAB, RANK), ones(WIDTH, RANK))
    with load(tiny_path("llama-untied"), lora_path=embeddings) as llm:
        assert not llm.drafting.masks  # they would not see the change
    n, name = tiny_models.N_EXPERT, "blk.0.ffn_gate_exps.weight"
    a, b = ones(n, RANK, WIDTH), ones(n, tiny_models.N_FF, RANK)
    experts = make_lora(tmp_path / "x.gguf", name, a, b, **{"general.architecture": "qwen3moe"})
    with load(tiny_path("qwen3moe"), lora_path=experts) as llm:
        assert llm.generate(PROMPT, max_tokens=4).tokens
    flat = make_lora(tmp_path / "f.gguf", name, a[0], b[0], **{"general.architecture": "qwen3moe"})
    with pytest.raises(ModelError, match=rf"{name} has \[64, 128, 4\]; give one that was made for this model"):
        load(tiny_path("qwen3moe"), lora_path=flat)


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
    # Behind the last layer llama.cpp adds nothing.
    behind = (tiny_models.N_LAYER, tiny_models.N_LAYER)
    with load(path, control_vector=vector, control_vector_layer_range=behind) as llm:
        assert llm.generate(PROMPT, max_tokens=24, temperature=0.0).tokens == without
    last = tiny_models.make_control_vector(tmp_path / "last.gguf", {tiny_models.N_LAYER: directions[1]})
    with load(path, control_vector=last) as llm:
        assert llm.generate(PROMPT, max_tokens=24, temperature=0.0).tokens == without


def test_what_llama_cpp_cannot_apply_is_named(
    tiny_path: Callable[[str], Path],
    tmp_path: Path,
    directions: dict[int, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lora = tiny_models.make_lora(tmp_path / "lora.gguf")
    vector = tiny_models.make_control_vector(tmp_path / "vector.gguf", directions)
    for function in ("llama_set_adapters_lora", "llama_set_adapter_cvec"):
        monkeypatch.setattr(llama_cpp, function, lambda *_: -1)
    with pytest.raises(ModelError, match=r"cannot apply the LoRA adapter .*lora\.gguf"):
        load(tiny_path("llama"), lora_path=lora)
    with pytest.raises(ModelError, match=r"cannot apply the control vector .*vector\.gguf"):
        load(tiny_path("llama"), control_vector=vector)


def test_a_wrong_control_vector_is_named(
    tiny_path: Callable[[str], Path], tmp_path: Path, directions: dict[int, np.ndarray]
) -> None:
    path, width = tiny_path("llama"), tiny_models.N_EMBD
    wrong: dict[str, dict[Any, np.ndarray]] = {
        "is of another model: direction.1 has the shape": {1: np.zeros(width + 1, np.float32)},
        rf"direction.1 has the shape \[{width}, 2\]": {1: np.zeros((2, width), np.float32)},
        f"direction.{tiny_models.N_LAYER + 1} has the shape": {tiny_models.N_LAYER + 1: np.zeros(width, np.float32)},
        "its tensor direction.1x is no direction": {"1x": np.zeros(width, np.float32)},
        "its tensor direction.0 is no direction": {0: np.zeros(width, np.float32)},
        "no direction.N of F32": {1: np.zeros(width, np.float16)},
        "direction.1 is cut or no number": {1: np.full(width, np.nan, np.float32)},
        "direction.2 is cut or no number": {1: np.zeros(width, np.float32), 2: np.full(width, np.inf, np.float32)},
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
    cut.write_bytes(good.read_bytes()[:30])
    with pytest.raises(ModelError, match=r"cut\.gguf is no control vector: it has no tensors"):
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
        ({"lora_path": "x.gguf", "lora_scale": -100.5}, ValueError, "lora_scale must be"),
        ({"lora_path": "x.gguf", "lora_scale": 100.5}, ValueError, "lora_scale must be"),
        ({"control_vector": "x.gguf", "control_vector_scale": "much"}, TypeError, "control_vector_scale"),
        ({"control_vector": "x.gguf", "control_vector_scale": -2e6}, ValueError, "control_vector_scale must be"),
        ({"control_vector": "x.gguf", "control_vector_scale": 2e6}, ValueError, "control_vector_scale must be"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": (2, 1)}, ValueError, "layer_range"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": (0, 1)}, ValueError, "layer_range"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": 1}, TypeError, "the first and the last layer"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": (1, 2, 3)}, TypeError, "the first and the last"),
        ({"control_vector": "x.gguf", "control_vector_layer_range": "12"}, TypeError, "layer_range"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, tiny_path: Callable[[str], Path]
) -> None:
    with pytest.raises(error, match=message):
        load(tiny_path("llama"), **options)


SMALL: list[dict[str, int]] = [*({"n_ctx": n} for n in (1, 2, 31, 32, 63, 64)), {"n_batch": 2}, {"n_ubatch": 2}]
ONE_ROW: list[dict[str, int]] = [{"n_batch": 1}, {"n_ubatch": 1}, {"n_ctx": 1, "n_batch": 1, "n_ubatch": 1}]


@pytest.mark.parametrize("options", SMALL, ids=str)
def test_small_settings_work(options: dict[str, int], tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama"), **{"n_ctx": 256, "n_threads": 1, **options}) as llm:
        assert llm.n_ctx() == 256  # llama.cpp's step
        drafted = llm.generate(PROMPT, max_tokens=12, temperature=0.0)
        plain = llm.generate(PROMPT, max_tokens=12, temperature=0.0, speculate=False, cache_prompt=False)
        assert drafted.tokens == plain.tokens


@pytest.mark.parametrize("options", ONE_ROW, ids=str)
def test_passes_of_one_row_have_no_drafts(options: dict[str, int], tiny_path: Callable[[str], Path]) -> None:
    path = tiny_path("llama")
    with (
        pytest.warns(RuntimeWarning, match="n_batch or n_ubatch of 1 a pass has no room for drafts"),
        MaskProbeLlama(path, **{"n_ctx": 256, "n_threads": 1, **options}) as llm,
    ):
        tokens = llm.generate(PROMPT[:3], max_tokens=6, temperature=0.0).tokens
    with load(path) as llm:
        assert tokens == llm.generate(PROMPT[:3], max_tokens=6, temperature=0.0, speculate=False).tokens
