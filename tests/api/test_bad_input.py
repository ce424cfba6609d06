"""Bad input gets one clear exception that names the value, and the object stays usable."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskprobe import BusyError, ClosedError, ContextError, MaskProbeError, MaskProbeLlama, ModelError, Speculation


@pytest.fixture
def unharmed(llm: MaskProbeLlama, prompts: dict[str, str]) -> Iterator[MaskProbeLlama]:
    """The shared model; after the test it must answer as before."""

    def answer() -> list[int]:
        return llm.generate(prompts["days"], max_tokens=6, temperature=0.0, cache_prompt=False).tokens

    before = answer()
    yield llm
    assert answer() == before


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.gguf does not exist"):
        MaskProbeLlama(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelError, match="is not a file"):
        MaskProbeLlama(tmp_path)
    text = tmp_path / "text.gguf"
    text.write_text("Once upon a time")
    with pytest.raises(ModelError, match=r"is not a GGUF file .*Once"):
        MaskProbeLlama(text)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match="is not a GGUF file"):
        MaskProbeLlama(tmp_path / "empty.gguf")
    (tmp_path / "part-00001-of-00003.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"00002-of-00003\.gguf does not exist"):
        MaskProbeLlama(tmp_path / "part-00001-of-00003.gguf")


@pytest.mark.parametrize("share", [0.00001, 0.001, 0.02, 0.2, 0.6, 0.999])
def test_truncated_models(share: float, tmp_path: Path, model_path: Callable[[str], Path]) -> None:
    data = model_path("Q4_0").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: max(16, int(share * len(data)))])
    with pytest.raises(ModelError, match=r"cannot load .*cut\.gguf"):
        MaskProbeLlama(cut)


@pytest.mark.parametrize(("name", "reason"), [("bert", "no decoder"), ("t5", "encoder-decoder")])
def test_models_that_do_not_generate(name: str, reason: str, tiny_path: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=reason):
        MaskProbeLlama(tiny_path(name))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_tokens": 0}, ValueError, "max_tokens must be in 1.*got 0"),
        ({"max_tokens": -3}, ValueError, "got -3"),
        ({"max_tokens": 2.5}, TypeError, "max_tokens must be an integer, got 2.5"),
        ({"temperature": -0.1}, ValueError, "temperature must be at least 0, got -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature must be at least 0, got nan"),
        ({"temperature": math.inf}, ValueError, "got inf"),
        ({"temperature": "hot"}, TypeError, "got 'hot'"),
        ({"top_p": 1.5}, ValueError, "top_p must be in 0..1, got 1.5"),
        ({"min_p": -1}, ValueError, "min_p"),
        ({"typical_p": math.nan}, ValueError, "typical_p"),
        ({"top_k": 1.5}, TypeError, "top_k"),
        ({"repeat_penalty": 0.0}, ValueError, "repeat_penalty must be above 0"),
        ({"presence_penalty": math.nan}, ValueError, "presence_penalty"),
        ({"penalty_last_n": -1}, ValueError, "penalty_last_n"),
        ({"seed": -2}, ValueError, "seed must be in -1..4294967295, got -2"),
        ({"stop": [3]}, ValueError, "stop must hold strings"),
        ({"speculate": 1}, TypeError, "expected a Speculation, got 1"),
        ({"speculate": "fast"}, TypeError, "got 'fast'"),
        ({"speculate": Speculation(tree=(255,), block=512)}, ValueError, "256 leaves.*64 sequences"),
        ({"speculate": Speculation(tree=(4,), probe=np.zeros(575))}, ValueError, "575 dimensions.*576"),
        ({"speculate": Speculation(masks=4, tree=(120,), block=1000)}, ValueError, "1000 rows.*n_ubatch=512"),
        ({"temprature": 0.5}, TypeError, "temprature"),
    ],
)
def test_bad_options(
    options: dict[str, Any], error: type[Exception], message: str, unharmed: MaskProbeLlama, prompts: dict[str, str]
) -> None:
    with pytest.raises(error, match=message):
        unharmed.generate(prompts["days"], **options)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("", ValueError, "prompt is empty"),
        (b"Hello", TypeError, "the prompt is bytes"),
        ([], ValueError, "prompt is empty"),
        ([5, 49152], ValueError, "token id must be in 0..49151, got 49152"),
        ([-1], ValueError, "got -1"),
        ([1.0], TypeError, "token id must be an integer, got 1.0"),
        ([True], TypeError, "got True"),
        ([7] * 1024, ContextError, "1024 tokens, but n_ctx=1024"),
        ("word " * 3000, ContextError, "n_ctx=1024"),
    ],
)
def test_bad_prompts(prompt: str | list[int], error: type[Exception], message: str, unharmed: MaskProbeLlama) -> None:
    with pytest.raises(error, match=message):
        unharmed.generate(prompt)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_ctx": -1}, ValueError, "n_ctx"),
        ({"n_batch": 0}, ValueError, "n_batch must be in 1.*got 0"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"n_gpu_layers": -2}, ValueError, "n_gpu_layers"),
        ({"seed": "x"}, TypeError, "seed"),
        ({"type_k": 8}, ValueError, "needs heads of a multiple of 32 dimensions.* has 16"),
        ({"type_v": 99}, ValueError, "ggml types.*got 99"),
        ({"speculation": "fast"}, TypeError, "expected a Speculation"),
    ],
)
def test_bad_constructor_arguments(
    options: dict[str, Any], error: type[Exception], message: str, tiny_path: Callable[[str], Path]
) -> None:
    with pytest.raises(error, match=message):
        MaskProbeLlama(tiny_path("llama"), **options)


def test_errors_of_the_package_have_one_base() -> None:
    assert issubclass(ContextError, ValueError)
    for error in (BusyError, ClosedError, ContextError, ModelError):
        assert issubclass(error, MaskProbeError)


def test_a_busy_object_refuses_a_second_entry(unharmed: MaskProbeLlama, prompts: dict[str, str]) -> None:
    stream = unharmed.stream(prompts["python"], max_tokens=50, temperature=0.0)
    next(stream)
    seen: list[Exception] = []

    def enter() -> None:
        try:
            unharmed.generate(prompts["days"], max_tokens=2)
        except MaskProbeError as error:
            seen.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert [type(error) for error in seen] == [BusyError]
    with pytest.raises(BusyError, match="already generating"):
        unharmed.generate(prompts["days"], max_tokens=2)
    for method in (unharmed.reset, unharmed.close):
        with pytest.raises(BusyError):
            method()
    assert len([chunk for chunk in stream if chunk.tokens]) == 49  # the stream was not disturbed


def test_use_after_close(tiny_path: Callable[[str], Path]) -> None:
    llm = MaskProbeLlama(tiny_path("llama"))
    llm.close()
    llm.close()  # closing twice is fine
    for use in (
        lambda: llm.generate("a"),
        lambda: llm.tokenize("a"),
        lambda: llm.detokenize([1]),
        llm.n_ctx,
        llm.n_vocab,
        llm.reset,
        llm.description,
    ):
        with pytest.raises(ClosedError, match="closed"):
            use()


def test_a_context_manager_closes(tiny_path: Callable[[str], Path]) -> None:
    with MaskProbeLlama(tiny_path("llama")) as llm:
        assert llm.generate("a", max_tokens=2).tokens
    with pytest.raises(ClosedError):
        llm.generate("a")


@pytest.mark.parametrize("speculate", [False, Speculation(budget=12), Speculation(tree=(14,))])
def test_a_full_context_ends_with_length(
    speculate: bool | Speculation, model_path: Callable[[str], Path], prompts: dict[str, str]
) -> None:
    with MaskProbeLlama(model_path("Q4_0"), n_ctx=256, n_threads=1) as llm:
        ids = llm.tokenize(prompts["lighthouse"] + "One ship, two ships, three ships, four ships, " * 30)[:236]
        assert llm.n_ctx() == 256
        out = llm.generate(ids, max_tokens=None, temperature=0.0, speculate=speculate)
        assert (len(ids) + len(out.tokens), out.finish_reason) == (256, "length")
        again = llm.generate(ids, max_tokens=None, temperature=0.0, speculate=False, cache_prompt=False)
        assert out.tokens == again.tokens
        last = llm.generate([7] * 255, max_tokens=20, speculate=speculate)
        assert (len(last.tokens), last.finish_reason) == (1, "length")
