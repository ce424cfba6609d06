"""LoRA adapters and control vectors on the command line, under llama.cpp's options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny_models
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama, Speculation, cli
from maskprobe.cli import app

PROMPT = "the tree of the sea and the tree"
FAST = ("--n-threads", "1", "--n-ctx", "256", "--speculation", "budget=4")


class Files(NamedTuple):
    model: str
    lora: str
    vector: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("adapters")
    directions = {1: np.random.default_rng(1).normal(size=tiny_models.N_EMBD).astype(np.float32)}
    return Files(
        str(tiny_models.make("llama", folder / "llama.gguf")),
        str(tiny_models.make_lora(folder / "lora.gguf")),
        str(tiny_models.make_control_vector(folder / "vector.gguf", directions)),
    )


def generated(files: Files, *args: str) -> str:
    command = ["generate", PROMPT, "-m", files.model, *FAST, "--raw", "--temperature", "0", "--max-tokens", "16"]
    done = CliRunner().invoke(app, [*command, *args])
    assert done.exit_code == 0, done.output
    return done.stdout.removesuffix("\n")


def test_they_are_those_of_the_python_api(files: Files) -> None:
    model, lora, vector = files
    options: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        ((), {}),
        (("--lora", lora), {"lora_path": lora}),
        (("--lora-scaled", f"{lora}:-0.5"), {"lora_path": lora, "lora_scale": -0.5}),
        (("--control-vector", vector), {"control_vector": vector}),
        (
            ("--control-vector-scaled", f"{vector}:-2", "--lora", lora),
            {"control_vector": vector, "control_vector_scale": -2.0, "lora_path": lora},
        ),
    ]
    texts = []
    for args, arguments in options:
        with MaskProbeLlama(model, n_ctx=256, n_threads=1, speculation=Speculation(budget=4), **arguments) as llm:
            texts.append(llm.generate(PROMPT, max_tokens=16, temperature=0.0).text)
        assert generated(files, *args) == texts[-1]
    assert len(set(texts)) == len(options)


def test_a_layer_range_has_two_ends(files: Files) -> None:
    vector = ("--control-vector", files.vector)
    assert generated(files, *vector, "--control-vector-layer-range", "1", "2") == generated(files, *vector)
    # It has a direction for the first layer alone.
    assert generated(files, *vector, "--control-vector-layer-range", "2", "2") == generated(files)


@pytest.mark.parametrize("command", ["generate", "chat", "serve"])
def test_commands_that_answer_take_them(
    command: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, text = tmp_path / "missing.gguf", tmp_path / "notes.txt"
    text.write_text("no model\n")
    for args, message in (
        (("--lora", str(missing)), f"{missing} does not exist; check the path"),
        (("--lora-scaled", f"{text}:2"), f"{text} is not a GGUF file"),
        (("--lora", files.vector), f"cannot use the LoRA adapter {files.vector}: "),
        (("--lora-scaled", f"{files.lora}:1000"), "lora_scale must be in"),
        (("--lora-scaled", files.lora), f"--lora-scaled takes FILE:SCALE, for example {files.lora}:0.5, got"),
        (("--lora-scaled", ":1"), "--lora-scaled takes FILE:SCALE"),
        (("--lora", "a.gguf", "--lora-scaled", "b.gguf:1"), "--lora takes one file, got a.gguf, b.gguf; leave"),
        (("--control-vector", str(missing)), f"{missing} does not exist; check the path"),
        (("--control-vector", files.model), f"{files.model} is no control vector"),
        (("--control-vector-scaled", f"{files.vector}:x"), f"for example {files.vector}:0.5, got"),
        (("--control-vector", "a.gguf", "--control-vector", "b.gguf"), "--control-vector takes one file"),
        (("--control-vector", files.vector, "--control-vector-layer-range", "1", "9"), "the model has 2 layers"),
        (("--control-vector-layer-range", "1", "2"), "needs a --control-vector"),
    ):
        arguments = {"generate": ["Hi"], "chat": [], "serve": ["--port", "0"]}[command]
        monkeypatch.setattr(sys, "argv", ["maskprobe", command, *arguments, "-m", files.model, *FAST, *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("maskprobe: ")
        assert message in line
