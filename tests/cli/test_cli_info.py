"""`maskprobe info`: what it says of models and machines; and the costs of rows that it tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from maskprobe.cli import app
from maskprobe.drafting import costs, store
from maskprobe.drafting.costs import Costs
from maskprobe.llamacpp.devices import devices, ggml_version


def run(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*args, "--n-threads", "1"])
    assert result.exit_code == code, result.output
    return result.stdout


def test_info_tells_what_the_file_says(model_path: Callable[[str], Path]) -> None:
    path = model_path("Q4_0")
    found = json.loads(run("info", str(path), "--json"))
    assert found["file"] == str(path)
    assert found["file_bytes"] == path.stat().st_size
    assert (found["architecture"], found["quantization"]) == ("llama", "Q4_0")
    assert (found["context_length"], found["vocabulary"], found["layers"]) == (8192, 49152, 30)
    assert found["parameters"] == 134515008
    assert (found["chat_template"], found["shape"], found["masks"]) == (True, "trees", True)
    assert found["drafting"] == "trees, with masks"
    assert [point["rows"] for point in found["cost_curve"]][:2] == [1, 2]
    assert found["cost_curve"][0]["plain_passes"] == 1.0


def test_info_tells_what_is_in_the_cache(
    model_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path))
    path = model_path("Q4_0")
    before = json.loads(run("info", str(path), "--json"))
    assert (before["tuned_costs"], before["tuned_adjacency"], before["tuned_texts"]) == (False, False, False)
    assert before["start_vector_scores"] == {}
    setup = before["setup"]
    store.store_costs(path, setup, Costs({1: 10.0, 2: 15.0, 4: 25.0}))
    store.store_texts(path, [np.array([5, 6], np.int32)])
    after = json.loads(run("info", str(path), "--json"))
    assert (after["tuned_adjacency"], after["tuned_texts"]) == (False, True)
    assert after["tuned_costs"] is True
    assert [(point["rows"], point["ms"], point["plain_passes"]) for point in after["cost_curve"]] == [
        (1, 10.0, 1.0),
        (2, 15.0, 1.5),
        (4, 25.0, 2.5),
    ]
    assert after["rows_that_pay"] == {"0.6": 2, "0.8": 3, "0.95": 6}
    text = run("info", str(path))
    assert "costs, texts" in text
    assert "2: 1.50, 4: 2.50" in text
    assert "\x1b" not in text


def test_info_says_what_a_model_drafts_and_why_not_more(
    tiny_path: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tiny_path("mamba"))
    found = json.loads(run("info", path, "--json"))
    assert (found["shape"], found["masks"], found["n_snapshots"]) == ("chains", False, 0)
    assert "recurrent state" in found["why_no_trees"]
    assert "decoded again" in run("info", path)
    found = json.loads(run("info", str(tiny_path("lfm2")), "--json"))
    assert (found["shape"], found["masks"], found["n_snapshots"]) == ("chains", True, 16)
    assert found["snapshot_bytes"] > 16 * 100
    assert capfd.readouterr().err == ""


def test_the_cpu_is_a_device() -> None:
    assert "CPU" in [device.name for device in devices()]
    assert all(0 <= device.free_bytes <= device.total_bytes for device in devices())
    assert ggml_version()[0].isdigit()


def line(second: float, n: int = 60) -> np.ndarray:
    """Costs of 1..n rows where each further row costs the same."""
    return np.float32(1.0) + np.float32(second) * np.arange(n, dtype=np.float32)


def test_rows_pay_as_far_as_drafts_come_true() -> None:
    assert costs.best_rows(line(0.0), 1.0) == (60, 60.0)
    assert costs.best_rows(line(0.5), 0.5) == (1, 1.0)  # as much as it costs: not worth a row
    assert costs.best_rows(line(0.5), 0.8)[0] == 3
    assert costs.best_rows(line(1.2), 1.0) == (1, 1.0)
    assert costs.best_rows(10.0 * line(0.5), 0.8) == costs.best_rows(line(0.5), 0.8)  # whatever the unit


def test_the_outlook_follows_the_curve() -> None:
    assert costs.least_chance(line(1.0)) is None
    assert "no draft pays" in costs.outlook(line(1.0))
    cheap, dear = costs.least_chance(line(0.05)), costs.least_chance(line(0.7))
    assert cheap is not None
    assert dear is not None
    assert cheap < 0.2 < 0.7 < dear
    assert "nearly everywhere" in costs.outlook(line(0.05))
    assert "a pass of two rows costs 1.7 plain passes" in costs.outlook(line(0.7))
