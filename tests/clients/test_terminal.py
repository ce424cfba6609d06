"""codex and opencode against the server: a command of the model's is run, and its output goes back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import ScriptedLlama, call, scripted

N_CTX = 32768  # their instructions take some 7,000 tokens
SECONDS = 540
QUESTION = "Say hello by the shell."


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[ScriptedLlama, str]]:
    with scripted(N_CTX) as both:
        yield both


def run(folder: Path, *command: str) -> str:
    """What a program prints in a folder, with a home of its own."""
    home = folder / "home"
    home.mkdir()
    folders = {"PWD": str(folder), "HOME": str(home), "CODEX_HOME": str(home)}
    env = os.environ | folders | {"OPENCODE_DISABLE_MODELS_FETCH": "1"}
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_codex(large: tuple[ScriptedLlama, str], tmp_path: Path) -> None:
    model, server = large
    model.says(call("exec_command", cmd="echo hello"), "All done.")
    provider = {"name": '"local"', "base_url": f'"{server}/v1"', "wire_api": '"responses"'}
    settings = ["model_provider=local", *(f"model_providers.local.{key}={value}" for key, value in provider.items())]
    options = [part for setting in settings for part in ("-c", setting)]
    options += ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-m", "smollm2"]
    assert run(tmp_path, "codex", "exec", *options, QUESTION).strip() == "All done."
    assert model.roles()[-3:] == ["user", "assistant", "tool"]
    assert "hello" in model.asked[-1]["messages"][-1]["content"]


def test_opencode(large: tuple[ScriptedLlama, str], tmp_path: Path) -> None:
    model, server = large
    model.says(call("bash", command="echo hello", description="Says hello"), "All done.", without_tools="A title")
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{server}/v1", "apiKey": "none"},
        "models": {"smollm2": {"tool_call": True, "limit": {"context": N_CTX, "output": 4000}}},
    }
    settings = {"autoupdate": False, "share": "disabled", "permission": "allow", "provider": {"local": provider}}
    (tmp_path / "opencode.json").write_text(json.dumps(settings))
    assert "All done." in run(tmp_path, "opencode", "run", "-m", "local/smollm2", QUESTION)
    with_tools = [asked for asked in model.asked if asked.get("tools")]
    assert [message["role"] for message in with_tools[-1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert with_tools[-1]["messages"][-1]["content"] == "hello\n"
