"""`maskprobe models` and `maskprobe download`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve, use
from typer.testing import CliRunner

from maskprobe import cli
from maskprobe.cli import app


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as server:
        use(server.url, tmp_path / "cache", monkeypatch)
        server.add("Qwen/Qwen3-8B-GGUF", {"Qwen3-8B-Q4_K_M.gguf": b"GGUF", "Qwen3-8B-Q8_0.gguf": b"GGUF8"})
        yield server


def run(*args: str) -> str:
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_download_prints_the_path_alone(hub: Hub, tmp_path: Path) -> None:
    path = Path(run("download", "qwen3-8b").removesuffix("\n"))
    assert path.is_relative_to(tmp_path / "cache")
    assert path.read_bytes() == b"GGUF"
    hub.requests.clear()
    assert run("download", "Qwen/Qwen3-8B-GGUF", "--local-files-only") == f"{path}\n"
    assert hub.requests == []
    commit = hub.repos["Qwen/Qwen3-8B-GGUF"].refs["main"]
    assert run("download", "qwen3-8b:q8_0", "--revision", commit) == f"{path.with_name('Qwen3-8B-Q8_0.gguf')}\n"


def test_download_notes_that_the_cache_was_taken(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run("download", "qwen3-8b")
    del hub.repos["Qwen/Qwen3-8B-GGUF"]
    monkeypatch.setattr(sys, "argv", ["maskprobe", "download", "qwen3-8b"])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        cli.main()
    shown = capsys.readouterr()
    assert shown.out == path
    [line] = shown.err.splitlines()
    assert line.startswith("maskprobe: ")
    assert "the cache's files are used" in line


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["qwen3-8b:Q2_K"], "has no Q2_K; it has Q4_K_M, Q8_0"),
        (["u/nothing"], "u/nothing is no file and no repository"),
        (["qwen3-8"], "did you mean qwen3-8b"),
        (["qwen3-8b", "--local-files-only"], "is not in the cache"),
        (["nowhere.gguf"], "nowhere.gguf does not exist"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_exit_code_1(
    hub: Hub, args: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["maskprobe", "download", *args])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    shown = capsys.readouterr()
    assert caught.value.code == 1
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.startswith("maskprobe: ")
    assert text in line


def test_models_lists_the_catalogue_and_the_cache(hub: Hub) -> None:
    empty = json.loads(run("models", "--json"))
    assert empty["cache"] == []
    assert empty["catalogue"][0]["name"] == "smollm2"
    assert "maskprobe download NAME" in run("models")
    path = run("download", "qwen3-8b").strip()
    [model] = json.loads(run("models", "--json"))["cache"]
    assert model == {
        "name": "Qwen/Qwen3-8B-GGUF:Q4_K_M",
        "repo": "Qwen/Qwen3-8B-GGUF",
        "revision": "main",
        "quant": "Q4_K_M",
        "bytes": 4,
        "path": path,
    }
    shown = run("models")
    assert "Qwen/Qwen3-8B-GGUF (in the cache)" in shown
    assert "llama-3.2-3b" in shown
    assert "comes with maskprobe[demo]" in shown
    assert "\x1b" not in shown


def test_a_name_works_wherever_a_model_is_named(hub: Hub, tiny_path: Callable[[str], Path]) -> None:
    hub.add("u/tiny", {"tiny-F32.gguf": tiny_path("llama").read_bytes()})
    found = json.loads(run("info", "u/tiny:f32", "--json", "--n-threads", "1"))
    assert found["architecture"] == "llama"
    assert found["file"].endswith("tiny-F32.gguf")
