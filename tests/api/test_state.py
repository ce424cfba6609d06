"""A KV cache goes to a file and comes back in another object; a file that does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import tiny_models

from maskprobe import MaskProbeLlama, Speculation, StateError

PROMPT = "the tree of the sea and the tree of the sea and the tree"
MORE = " in the water"


def text_so_far(llm: MaskProbeLlama, path: Path) -> list[int]:
    """A prompt and its answer, saved."""
    ids = llm.tokenize(PROMPT)
    out = llm.generate(ids, max_tokens=24, temperature=0.0)
    n = llm.save_state(path)
    assert len(ids) <= n < len(ids) + len(out.tokens)
    return [*ids, *out.tokens, *llm.tokenize(MORE, add_bos=False)]


def test_another_object_goes_on_where_one_stopped(model_path: Callable[[str], Path], tmp_path: Path) -> None:
    path, file = model_path("Q4_0"), tmp_path / "state"
    modes = (False, Speculation(budget=8), Speculation(tree=(6,)))
    with MaskProbeLlama(path, n_ctx=512, n_threads=1, speculation=Speculation(tree=(6,))) as one:
        ids = text_so_far(one, file)
        n = one.engine.session.n_cached()
        expected = one.generate(ids, max_tokens=8, temperature=0.0).tokens
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as two:
        two.generate("Something else", max_tokens=4)
        for mode in modes:
            assert two.load_state(file) == n
            out = two.generate(ids, max_tokens=8, temperature=0.0, speculate=mode)
            assert out.stats.cache_n == n
            assert out.tokens == expected
        again = two.generate(ids[: n // 2], max_tokens=4, temperature=0.0, speculate=modes[1])
        assert again.stats.cache_n == n // 2 - 1


@pytest.mark.parametrize("name", ["gemma3", "deepseek2", "mamba", "lfm2"])
def test_every_kind_of_memory_comes_back(name: str, tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "state"
    speculation = Speculation(tree=(6,)) if name in ("gemma3", "deepseek2") else Speculation(budget=6)
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1, speculation=speculation) as one:
        ids = text_so_far(one, file)
        n = one.engine.session.n_cached()
        expected = one.generate(ids, max_tokens=16, temperature=0.0)
        assert expected.stats.cache_n == n
    with MaskProbeLlama(tiny_path(name), n_ctx=512, n_threads=1, speculation=speculation) as two:
        two.load_state(file)
        out = two.generate(ids, max_tokens=16, temperature=0.0)
        assert out.stats.cache_n == n
        assert out.tokens == expected.tokens


def test_a_file_that_does_not_fit_is_refused(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    path, file, wrong = tiny_path("llama"), tmp_path / "state", tmp_path / "wrong"
    options = {"n_ctx": 256, "n_threads": 1, "speculation": Speculation(tree=(6,))}
    with MaskProbeLlama(path, **options) as llm:  # type: ignore[arg-type]
        with pytest.raises(StateError, match="the KV cache is empty"):
            llm.save_state(file)
        ids = text_so_far(llm, file)

        def answer() -> list[int]:
            return llm.generate(ids, max_tokens=8, temperature=0.0, cache_prompt=False).tokens

        expected = answer()

        def refused(message: str, contents: bytes | None) -> None:
            if contents is not None:
                wrong.write_bytes(contents)
            with pytest.raises(StateError, match=message) as caught:
                llm.load_state(wrong)
            assert "\n" not in str(caught.value)
            assert answer() == expected

        good = file.read_bytes()
        damaged = "is not a file that save_state wrote, or it is damaged"
        refused(r"wrong cannot be read: No such file", None)
        for contents in (b"", b"GGUF", good[:100], good[: len(good) // 2], good[:-10], b"\x93NUMPY" + good):
            refused(damaged, contents)
        for at in (200, len(good) // 2):
            refused(damaged, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])

        stored = dict(np.load(file))
        changes: list[tuple[str, dict[str, object]]] = [
            ("of another model", {"setup": np.array("another")}),
            ("tokens that llama.gguf does not know", {"tokens": stored["tokens"] + 10**6}),
            (damaged, {"tokens": stored["tokens"].astype(float)}),
            ("positions for", {"tokens": stored["tokens"][:-1]}),
            ("does not fit this context", {"state": stored["state"][:-100]}),
            ("does not fit this context", {"state": np.zeros(64, np.uint8)}),
            (r"300 tokens, but n_ctx=256", {"tokens": np.zeros(300, np.int32)}),
        ]
        for message, change in changes:
            with wrong.open("wb") as out:
                np.savez(out, **{**stored, **change})
            refused(message, None)
        llm.load_state(file)
        assert llm.generate(ids, max_tokens=8, temperature=0.0).stats.cache_n > 0


def test_a_state_belongs_to_a_model_and_its_settings(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "state"
    options = {"n_ctx": 256, "n_threads": 1, "speculation": Speculation(tree=(6,))}
    with MaskProbeLlama(tiny_path("llama"), **options) as llm:  # type: ignore[arg-type]
        ids = text_so_far(llm, file)
    twin = tiny_models.make("llama", tmp_path / "twin.gguf", seed=1)  # differs in its weights alone
    same = tiny_models.make("llama", tmp_path / "same.gguf")
    lora = tiny_models.make_lora(tmp_path / "lora.gguf")
    directions = {1: np.ones(tiny_models.N_EMBD, np.float32)}
    vector = tiny_models.make_control_vector(tmp_path / "vector.gguf", directions)
    others: list[tuple[Path, dict[str, object], str | None]] = [
        (twin, {}, "of another model than twin.gguf"),
        (same, {"lora_path": lora}, "another adapter"),
        (same, {"control_vector": vector}, "another adapter"),
        (same, {"rope_freq_base": 20000.0}, "or rope"),
        (same, {"type_k": 0}, "does not fit this context"),
        (same, {"flash_attn": False}, "does not fit this context"),
        (same, {}, None),
    ]
    for path, more, message in others:
        with MaskProbeLlama(path, **options, **more) as other:  # type: ignore[arg-type]
            if message is None:
                other.load_state(file)
            else:
                with pytest.raises(StateError, match=message):
                    other.load_state(file)
            out = other.generate(ids, max_tokens=4, temperature=0.0)
            assert (out.stats.cache_n > 0) == (message is None)


@pytest.fixture
def saved(tiny_path: Callable[[str], Path], tmp_path: Path) -> Iterator[tuple[MaskProbeLlama, Path]]:
    """An object and the file that its state is in."""
    file = tmp_path / "state"
    with MaskProbeLlama(tiny_path("llama"), n_ctx=256, n_threads=1, speculation=Speculation(tree=(6,))) as llm:
        text_so_far(llm, file)
        yield llm, file


def test_a_state_of_another_format_is_refused(
    saved: tuple[MaskProbeLlama, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, file = saved
    monkeypatch.setattr(llama_cpp, "LLAMA_STATE_SEQ_VERSION", llama_cpp.LLAMA_STATE_SEQ_VERSION - 1)
    with pytest.raises(StateError, match=r"in another format than that of llama-cpp-python 0\.3\."):
        llm.load_state(file)


def test_what_was_saved_before_stays_when_saving_fails(
    saved: tuple[MaskProbeLlama, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, file = saved
    before = file.read_bytes()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        llm.save_state(tmp_path / "nowhere" / "state")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maskprobe.generation.state.np.savez", full)
    with pytest.raises(OSError, match="No space left"):
        llm.save_state(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
