"""Models, prompts and objects that the tests share, made from the embedded model in temporary folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp
import pytest
import tiny_models
from gguf import GGMLQuantizationType
from reference import GPU_LAYERS, PlainDecoder, quiet_llama_cpp

from maskprobe import MaskProbeLlama, embedded_model

N_CTX = 1024
FILE_TYPES = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "rare types": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}
# The tensors of a file that have a type of their own, by patterns of their names. Rows of ffn_down alone are whole
# blocks of the K-quants.
OVERRIDES = {
    "rare types": {
        r"blk\.[0-9]\.ffn_down": GGMLQuantizationType.Q5_K,
        r"blk\.1[0-4]\.ffn_down": GGMLQuantizationType.IQ4_XS,
        r"blk\.1[5-9]\.ffn_down": GGMLQuantizationType.Q3_K,
        r"blk\.2[0-9]\.ffn_down": GGMLQuantizationType.Q2_K,
        "ffn_gate": GGMLQuantizationType.MXFP4,
        "ffn_up": GGMLQuantizationType.IQ4_NL,
        "attn_q": GGMLQuantizationType.Q5_1,
        "attn_output": GGMLQuantizationType.BF16,
    },
}

QUESTIONS = {
    "days": "Name the seven days of the week, one on each line.",
    "lighthouse": "Explain in a few sentences how a lighthouse helps ships find the harbour at night.",
    "bakery": (
        "Mira opened a small bakery at the corner of our street last spring. She bakes rye bread, honey cakes and "
        "almond rolls every morning, and by noon most of it is sold. On Saturdays her brother helps her behind the "
        "counter, and on Sundays the shop is closed. Last week she told me that she wants to rent the room next door "
        "and put in three tables, so that people can sit down with a cup of coffee. Summarize this in one sentence."
    ),
    "python": "Write a Python function that returns the largest number in a list.",
}


def chat(question: str) -> str:
    """A question in the chat format of the embedded model."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKPROBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("MASKPROBE_MODELS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _on_the_device() -> Iterator[None]:
    """Models that say nothing else lie where MASKPROBE_TEST_GPU_LAYERS puts them."""
    defaults = MaskProbeLlama.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "n_gpu_layers", GPU_LAYERS)
        yield


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The embedded model by type of its weights; each is made once."""
    folder = tmp_path_factory.mktemp("models")
    quiet_llama_cpp()

    def path(file_type: str) -> Path:
        if file_type == "Q4_1":
            return embedded_model()
        target = folder / f"smollm2-{file_type}.gguf"
        if not target.exists():
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype = FILE_TYPES[file_type]
            params.allow_requantize = True
            params.nthread = 1
            overrides = [(pattern.encode(), type_) for pattern, type_ in OVERRIDES.get(file_type, {}).items()]
            table = (llama_cpp.llama_model_tensor_override * (len(overrides) + 1))(*overrides)
            params.tt_overrides = table if overrides else None
            source, out = str(embedded_model()).encode(), str(target).encode()
            assert llama_cpp.llama_model_quantize(source, out, params) == 0
        return target

    yield path
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def load(model_path: Callable[[str], Path]) -> Iterator[Callable[[str], MaskProbeLlama]]:
    """One loaded model of each type, for tests that leave it as they found it."""
    loaded: dict[str, MaskProbeLlama] = {}

    def get(file_type: str) -> MaskProbeLlama:
        if file_type not in loaded:
            loaded[file_type] = MaskProbeLlama(model_path(file_type), n_ctx=N_CTX, n_threads=1)
        return loaded[file_type]

    yield get
    for llm in loaded.values():
        llm.close()


@pytest.fixture(scope="session")
def plain_decoder(model_path: Callable[[str], Path]) -> Iterator[Callable[[str], PlainDecoder]]:
    """Plain decoding of each type by llama_cpp alone."""
    loaded: dict[str, PlainDecoder] = {}

    def get(file_type: str) -> PlainDecoder:
        if file_type not in loaded:
            loaded[file_type] = PlainDecoder(model_path(file_type), n_ctx=N_CTX)
        return loaded[file_type]

    yield get
    for decoder in loaded.values():
        decoder.close()


@pytest.fixture(scope="session")
def llm(load: Callable[[str], MaskProbeLlama]) -> MaskProbeLlama:
    """The Q4_0 model with default settings."""
    return load("Q4_0")


@pytest.fixture(scope="module")
def served(model_path: Callable[[str], Path]) -> Iterator[MaskProbeLlama]:
    """The Q4_0 model that is served at url, for one module."""
    from server_fixtures import load_for_server

    with load_for_server(model_path("Q4_0")) as llm:
        yield llm


@pytest.fixture(scope="module")
def url(served: MaskProbeLlama) -> Iterator[str]:
    """Where served is served."""
    from server_fixtures import serving

    with serving(served) as url:
        yield url


@pytest.fixture(scope="session")
def prompts() -> dict[str, str]:
    """Chat prompts by name."""
    return {name: chat(question) for name, question in QUESTIONS.items()}


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random models by name; each is made once."""
    folder = tmp_path_factory.mktemp("tiny")

    def path(name: str) -> Path:
        target = folder / f"{name}.gguf"
        return target if target.exists() else tiny_models.make(name, target)

    return path
