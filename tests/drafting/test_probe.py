"""Mask embeddings: rows of the table, start vectors, and the choice among them."""

from __future__ import annotations

import math
import stat
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from maskprobe import MaskProbeLlama, Speculation, cache
from maskprobe.core.embeddings import Embeddings
from maskprobe.drafting.start_vectors import ProbeChoice, StartVectors


def table_of(path: Path) -> np.ndarray:
    """The whole embedding table, by gguf-python."""
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


@pytest.mark.parametrize("file_type", ["Q4_0", "Q8_0", "F16", "Q4_K_M"])
def test_rows_are_those_of_the_file(file_type: str, model_path: Callable[[str], Path]) -> None:
    path = model_path(file_type)
    table, embeddings = table_of(path), Embeddings(path)
    assert (embeddings.n_vocab, embeddings.n_embd) == table.shape
    ids = [0, 1, 17, 40_000, 49_151, 17]
    np.testing.assert_allclose(embeddings.rows(ids), table[ids], rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"token id 49152 is outside 0\.\.49151"):
        embeddings.rows([3, 49_152])
    np.testing.assert_allclose(embeddings.rows([5]), table[[5]], rtol=1e-6)  # still usable


def test_the_tables_moments(model_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path))
    path = model_path("Q8_0")
    table = table_of(path)
    expected = table.mean(0), table.std(0)

    def check() -> None:
        mean, deviation = StartVectors(Embeddings(path), path).table_mean_and_deviation
        np.testing.assert_allclose(mean, expected[0], atol=1e-5)
        np.testing.assert_allclose(deviation, expected[1], atol=1e-4)

    check()
    [stored] = tmp_path.iterdir()
    for damage in (b"", b"not an archive", stored.read_bytes()[:200]):
        stored.write_bytes(damage)
        check()
        assert len(stored.read_bytes()) > 4000  # computed again and stored
    good = cache.load_arrays("embeddings", path)
    assert good is not None
    for damaged in (np.zeros(3, np.float32), np.full(576, np.nan, np.float32), np.full(576, "x"), np.zeros((576, 1))):
        cache.store_arrays("embeddings", path, good | {"mean": damaged})
        check()
    cache.store_arrays("embeddings", path, {"deviation": good["deviation"]})
    check()
    assert not list(tmp_path.glob("*.part"))


def test_a_cache_that_cannot_be_written_is_done_without(
    model_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    blocked.chmod(stat.S_IRUSR)
    monkeypatch.setenv("MASKPROBE_CACHE", str(blocked / "cache"))
    path = model_path("Q8_0")
    mean, _ = StartVectors(Embeddings(path), path).table_mean_and_deviation
    assert np.isfinite(mean).all()


def test_a_changed_model_file_has_another_key(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    before = cache.model_key(file)
    file.write_bytes(b"other")
    assert cache.model_key(file) != before


def test_start_vectors(model_path: Callable[[str], Path]) -> None:
    path = model_path("Q8_0")
    table, embeddings = table_of(path), Embeddings(path)
    vectors, prompt = StartVectors(embeddings, path), [5, 9, 9, 100, 7]

    def start(probe: str | np.ndarray, k: int = 3, seed: int = 1) -> np.ndarray:
        masks = vectors.masks(k, probe, prompt, seed)
        assert (masks.shape, masks.dtype) == ((k, 576), np.float32)
        return masks

    np.testing.assert_allclose(start("prompt-mean"), np.tile(table[prompt].mean(0), (3, 1)), atol=1e-6)
    np.testing.assert_allclose(start("last-k"), table[[9, 100, 7]], atol=1e-6)
    np.testing.assert_allclose(start("last-4-mean", 1)[0], table[[9, 9, 100, 7]].mean(0), atol=1e-6)
    np.testing.assert_allclose(start("table-mean", 2), np.tile(table.mean(0), (2, 1)), atol=1e-5)
    np.testing.assert_array_equal(vectors.masks(2, "last-k", [4], 0), embeddings.rows([4, 4]))
    one, two = start("sample", seed=1), start("sample", seed=2)
    np.testing.assert_array_equal(one, start("sample", seed=1))
    assert not np.allclose(one, two)
    deviations = (vectors.masks(4, "sample", prompt, 0) - table.mean(0)) / table.std(0)
    assert abs(deviations.mean()) < 0.1
    assert abs(deviations.std() - 1.0) < 0.1
    vector = np.arange(576, dtype=np.float32)
    np.testing.assert_array_equal(start(vector), np.tile(vector, (3, 1)))
    np.testing.assert_array_equal(start(np.stack([vector] * 3)), np.tile(vector, (3, 1)))


def test_default_update_rates() -> None:
    assert Speculation(tree=(4,)).update_for("table-mean") == 0.0
    assert Speculation(tree=(4,)).update_for("prompt-mean") == 0.1
    assert Speculation(tree=(4,), update=0.4).update_for("table-mean") == 0.4


def test_the_probe_whose_guesses_come_true_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "some-model-Q4_K_M.gguf"
    model.write_bytes(b"GGUF")
    logps = {"table-mean": -5.0, "prompt-mean": -3.0, "last-4-mean": -4.0}
    choice = ProbeChoice(model, 8)
    tried = []
    for _ in range(12):
        name = choice.name()
        tried.append(name)
        choice.add(name, 50, 50 * logps[name])
    assert set(tried) == set(logps)
    assert choice.name() == ProbeChoice(model, 8).name() == "prompt-mean"


@pytest.mark.parametrize(
    "damage",
    [["x", 1.0], [96], [96, None], [-1, 1.0], [True, 1.0], [96, math.nan], [10**400, 1.0], [96, 10**400], {}, "96"],
    ids=lambda damage: str(damage)[:12],
)
def test_a_damaged_score_is_found_again(damage: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    scores: dict[str, object] = {"table-mean": [96, -480.0], "prompt-mean": [96, -288.0], "last-4-mean": [96, -384.0]}
    cache.store_json("probes", model, scores)
    assert ProbeChoice(model, 8).name() == "prompt-mean"
    cache.store_json("probes", model, scores | {"prompt-mean": damage})
    choice = ProbeChoice(model, 8)
    assert choice.name() == "prompt-mean"  # its turn, as if it had never been tried
    assert choice.best() == "last-4-mean"
    cache.store_json("probes", model, damage)
    assert ProbeChoice(model, 8).name() == "table-mean"


def test_a_catalogue_vector_is_found_by_the_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MASKPROBE_MODELS", str(tmp_path))
    model = tmp_path / "some-model-Q4_K_M.gguf"
    model.write_bytes(b"GGUF")
    np.save(tmp_path / "some-model.npy", np.ones(8, np.float32))
    choice = ProbeChoice(model, 8)
    assert choice.name() == "catalogue"
    assert choice.vector is not None
    assert ProbeChoice(model, 9).vector is None  # of another width
    np.save(tmp_path / "some-model.npy", np.full(8, np.nan, np.float32))
    assert ProbeChoice(model, 8).vector is None


def test_automatic_choice_runs(llm: MaskProbeLlama, prompts: dict[str, str]) -> None:
    names = set()
    for _ in range(3):
        llm.reset(learned=True)  # an answer that is known from before needs no masks
        stats = llm.generate(
            prompts["lighthouse"], max_tokens=40, temperature=0.0, speculate=Speculation(budget=20), cache_prompt=False
        ).stats
        assert stats.probe_n > 0
        assert -8.0 <= stats.probe_logp / stats.probe_n <= 0.0
        names.add(stats.probe)
    assert names <= {"table-mean", "prompt-mean", "last-4-mean"}
