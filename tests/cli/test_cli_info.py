"""`maskprobe info` and `maskprobe doctor`: what they say of models and machines, and their exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def doctor(*args: str, code: int = 0) -> dict[str, Any]:
    """The checks by name."""
    report = json.loads(run("doctor", "--json", *args, code=code))
    assert report["usable"] is (code == 0)
    return {check["name"]: check for check in report["checks"]}


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


def test_doctor_finds_this_installation_usable() -> None:
    checks = doctor()
    assert {"maskprobe", "Python", "llama-cpp-python", "threads", "cache", "model", "drafting", "drafts"} <= set(checks)
    assert checks["drafting"]["status"] == "ok"
    assert "1: 1.00, 2: " in checks["cost of a pass"]["found"]
    for check in checks.values():
        assert (check["remedy"] is not None) or check["status"] == "ok", check


def test_doctor_prints_a_line_per_check_and_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MASKPROBE_CACHE", str(tmp_path / "file" / "cache"))
    lines = run("doctor", "-m", str(tmp_path / "nowhere.gguf"), code=1).splitlines()
    assert f"warning cache: {tmp_path / 'file' / 'cache'} cannot be written" in "\n".join(lines)
    assert any("set MASKPROBE_CACHE" in line for line in lines)
    [problem] = [line for line in lines if line.startswith("problem")]
    assert "nowhere.gguf does not exist" in problem


def test_doctor_notices_too_many_threads() -> None:
    checks = json.loads(
        CliRunner().invoke(app, ["doctor", "--json", "-m", "nowhere.gguf", "--n-threads", "512"]).stdout
    )["checks"]
    [threads] = [check for check in checks if check["name"] == "threads"]
    assert threads["status"] == "warning"
    n_usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f"may run on {n_usable} of {os.cpu_count()} CPUs" in threads["found"]


def test_doctor_says_how_a_model_is_drafted(tiny_path: Callable[[str], Path]) -> None:
    checks = doctor("-m", str(tiny_path("mamba")))
    assert checks["model"]["status"] == "ok"
    assert checks["drafting"]["status"] == "ok"
    assert "recurrent" in checks["drafting"]["found"]


def test_doctor_refuses_gpu_layers_of_a_cpu_build(tiny_path: Callable[[str], Path]) -> None:
    checks = doctor("-m", str(tiny_path("llama")), "--n-gpu-layers", "-1", code=1)
    assert checks["GPU"]["status"] == "problem"
    assert "DGGML_CUDA" in checks["GPU"]["remedy"]


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
