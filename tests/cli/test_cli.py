"""The command line: text on standard output, figures and errors on standard error, honest exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def maskprobe(*args: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskprobe.cli", *args]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=300, env={**os.environ, **(env or {})}
    )


@pytest.fixture(scope="module")
def model(model_path: Callable[[str], Path]) -> str:
    return str(model_path("Q4_0"))


def test_generate_streams_and_ends_with_figures(model: str) -> None:
    done = maskprobe(
        "generate", "Say hi.", "-m", model, "--max-tokens", "8", "--n-threads", "1", "--temperature", "0", "--compare"
    )
    assert done.returncode == 0
    assert len(done.stdout.strip()) > 3
    line, *why = done.stderr.strip().splitlines()
    assert [text[:9] for text in why] == (["no gain: "] if why else [])  # one line, if any
    assert line.startswith("8 tokens in ")
    assert "acceptance length" in line
    assert "tokens/s" in line
    assert "x plain llama.cpp" in line
    assert "\x1b" not in done.stdout + done.stderr


def test_the_package_is_the_command(model: str) -> None:
    """Commands with processes of their own too, from a folder that has nothing of ours."""
    options = ("--kind", "json", "-m", model, "--max-tokens", "4", "--n-threads", "1", "--n-ctx", "512", "--json")
    command = [sys.executable, "-m", "maskprobe", "race", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(model).parent)
    assert (done.returncode, done.stderr) == (0, "")
    [race] = json.loads(done.stdout)["races"]
    assert race["parts_at"] is None
    done = subprocess.run([*command[:3], "generate", "Hi", "-m", "nowhere.gguf"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("maskprobe: ")
    done = subprocess.run([*command[:3], "generate", "--no-such-option"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "python -m maskprobe generate" in done.stderr


def test_the_embedded_model_is_the_default() -> None:
    done = maskprobe("generate", "Say hi.", "--max-tokens", "2", "--n-threads", "1", "--plain")
    assert done.returncode == 0
    assert "2 tokens in 1 passes, acceptance length 1.00" in done.stderr


def test_generate_reads_standard_input(model: str) -> None:
    options = ("-m", model, "--max-tokens", "6", "--n-threads", "1", "--temperature", "0", "--raw")
    assert (
        maskprobe("generate", "-", *options, stdin="1 2 3 4").stdout
        == maskprobe("generate", "1 2 3 4", *options).stdout
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-m", "nowhere.gguf"), "nowhere.gguf does not exist"),
        (("--max-tokens", "0"), "max_tokens must be"),
        (("--speculation", "masks=nine"), "masks='nine'"),
        (("--temperature", "-1"), "temperature must be"),
    ],
)
def test_errors_are_one_line(args: tuple[str, ...], message: str) -> None:
    done = maskprobe("generate", "Hi", "--n-threads", "1", *args)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("maskprobe: ")
    assert message in line


def test_usage_errors_exit_with_2() -> None:
    done = maskprobe("generate")
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


def test_tune_resumes_and_is_used(tmp_path: Path, tiny_path: Callable[[str], Path]) -> None:
    env = {"MASKPROBE_CACHE": str(tmp_path)}
    tiny = str(tiny_path("llama"))
    options = ("--n-threads", "1", "--n-ctx", "512", "--text-tokens", "300")
    done = maskprobe("tune", tiny, *options, env=env)
    assert done.returncode == 0, done.stderr
    for part in ("cost of a pass", "table-mean", "speed against plain", "copying"):
        assert part in done.stdout
    assert "rewriting" in done.stdout
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert {"adjacency", "costs", "embeddings", "probes", "texts"} <= set(names)
    kept = [path for part in ("adjacency", "texts") for path in tmp_path.glob(f"{part}-*")]
    before = {path.name: path.stat().st_mtime_ns for path in kept}
    again = maskprobe("tune", tiny, *options, "--quick", env=env)
    assert again.returncode == 0
    assert "story" in again.stdout
    assert "explanation" not in again.stdout
    assert {path.name: path.stat().st_mtime_ns for path in kept} == before
