"""The plugin for `llm` (llm.datasette.io), through its command and its Python API, as installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest

from maskprobe import MaskProbeLlama, __version__
from maskprobe.llm_plugin import models

SMOLLM2 = "maskprobe/smollm2"
OPTIONS = {"temperature": 0.0, "max_tokens": 12, "n_threads": 1, "n_ctx": 1024, "speculate": "budget=4"}
ARGS = [part for name, value in OPTIONS.items() for part in ("-o", name, str(value))]


@pytest.fixture(scope="module")
def model() -> llm.Model:
    return llm.get_model(SMOLLM2)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `llm` with folders of its own and no network."""
    folders = {"LLM_USER_PATH": "llm", "HF_HOME": "hf", "MASKPROBE_CACHE": "cache"}
    env = {name: value for name, value in os.environ.items() if name not in ("LLM_LOAD_PLUGINS", "HF_HUB_CACHE")}
    env |= {name: str(tmp_path / folder) for name, folder in folders.items()} | {"HF_HUB_OFFLINE": "1"}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llm", *args], capture_output=True, text=True, timeout=120, env=env, input=""
        )

    return run


def test_a_conversation_by_the_command(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    first = command("-m", SMOLLM2, "-s", "Answer in one sentence.", "Name a colour.", *ARGS)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip()
    second = command("-c", "Name another one.", *ARGS)
    assert second.returncode == 0, second.stderr
    logged = json.loads(command("logs", "--json", "-n", "2").stdout)
    before, after = sorted(logged, key=lambda entry: entry["input_tokens"])
    assert (before["model"], after["model"]) == (SMOLLM2, SMOLLM2)
    assert before["conversation_id"] == after["conversation_id"]
    assert before["response"] == first.stdout.removesuffix("\n")
    assert before["output_tokens"] == 12
    assert after["input_tokens"] > before["input_tokens"] + before["output_tokens"]  # all of it was passed on
    timings = after["response_json"]["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == after["input_tokens"]
    assert timings["acceptance_length"] >= 1.0


def test_bad_options_are_one_line(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("-m", SMOLLM2, "Hi", "-o", "speculate", "masks=nine")
    assert done.returncode != 0
    assert "masks='nine'" in done.stderr
    assert "Traceback" not in done.stderr


def test_values_out_of_range_are_named(model: llm.Model) -> None:
    with pytest.raises(ValueError, match="temperature must be at least 0"):
        model.prompt("Hi", **{**OPTIONS, "temperature": -1.0}).text()
    with pytest.raises(ValueError, match="n_ctx must be"):
        model.prompt("Hi", **{**OPTIONS, "n_ctx": -1}).text()


def test_the_plugin_is_found_by_its_entry_point(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    found = json.loads(command("plugins", "--hook", "register_models").stdout)
    assert {"name": "maskprobe", "hooks": ["register_models"], "version": __version__} in found
    assert f"maskprobe: {SMOLLM2}\n" in command("models").stdout


def test_models_are_listed_with_their_options(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    listed = command("models", "--options", "-q", "maskprobe").stdout
    assert SMOLLM2 in listed
    for name in ("max_tokens", "temperature", "top_k", "min_p", "repeat_penalty", "seed", "stop", "speculate", "think"):
        assert f"{name}: " in listed


def test_models_in_the_hubs_cache_have_names(
    command: Callable[..., subprocess.CompletedProcess[str]], model_path: Callable[[str], Path], tmp_path: Path
) -> None:
    for repo, file in (
        ("bartowski/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q4_K_M.gguf"),
        ("someone/Else-GGUF", "else-Q4_0.gguf"),
    ):
        put_into_cache(tmp_path / "hf" / "hub", repo, file, model_path("Q4_0"))
    listed = command("models", "-q", "maskprobe").stdout
    assert "maskprobe/someone/Else-GGUF:Q4_0\n" in listed
    assert "maskprobe/bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M (aliases: maskprobe/smollm2-135m)\n" in listed
    answer = command("-m", "maskprobe/smollm2-135m", "Name a colour.", *ARGS)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()


def put_into_cache(cache: Path, repo: str, file: str, model: Path) -> None:
    """A model as huggingface_hub keeps it."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    for made in (snapshot, folder / "refs", folder / "blobs"):
        made.mkdir(parents=True)
    (folder / "refs" / "main").write_text(snapshot.name)
    (folder / "blobs" / "blob").symlink_to(model)
    (snapshot / file).symlink_to(folder / "blobs" / "blob")


def test_nothing_is_loaded_before_the_first_prompt() -> None:
    code = (
        "import llm, maskprobe.llama as core\n"
        "def refuse(*args, **kwargs): raise SystemExit('loaded')\n"
        "core.Model = refuse\n"
        f"print(llm.get_model('{SMOLLM2}').model_id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == (SMOLLM2, 0), done.stderr


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("llm.parts", "Mend it with: pip install -U 'maskprobe[llm]'"),  # as in older versions of llm
        ("llama_cpp", 'Mend it with: pip install "llama-cpp-python'),
    ],
)
def test_llm_goes_on_without_what_cannot_be_used(missing: str, why: str) -> None:
    done = with_the_plugin(
        f"sys.modules[{missing!r}] = None\n"
        "names = [model.model_id for model in llm.get_models()]\n"
        "print(len(names) > 0, any(name.startswith('maskprobe/') for name in names))"
    )
    assert (done.stdout.split(), done.returncode) == (["True", "False"], 0), done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("maskprobe's models are left out: ")
    assert why in line


def test_llama_cpp_is_not_loaded_for_other_commands() -> None:
    done = with_the_plugin("print([plugin['name'] for plugin in llm.get_plugins()], 'llama_cpp' in sys.modules)")
    assert (done.stdout, done.returncode) == ("['maskprobe'] False\n", 0), done.stderr


def with_the_plugin(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code behind what llm does at the start of each command, with no other plugin."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys, llm.cli\n{code}"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"LLM_LOAD_PLUGINS": "maskprobe"},
    )


def test_answers_stream_with_usage_and_timings(model: llm.Model) -> None:
    response = model.prompt("Name the days of the week.", **OPTIONS)
    pieces = list(response)
    assert len(pieces) > 3
    assert response.text() == "".join(pieces)
    usage = response.usage()
    assert (usage.output, response.json()["finish_reason"]) == (12, "length")
    assert response.json()["timings"]["predicted_n"] == 12
    assert model.prompt("Name the days of the week.", stream=False, **OPTIONS).text() == "".join(pieces)


def test_thinking_is_a_variable_of_the_template(model: llm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    inner = MaskProbeLlama.create_chat_completion

    def noting(self: MaskProbeLlama, *args: Any, **options: Any) -> Any:
        asked.append(options.get("chat_template_kwargs"))
        return inner(self, *args, **options)

    monkeypatch.setattr(MaskProbeLlama, "create_chat_completion", noting)
    for think in (None, True, False):
        model.prompt("Hi", **(OPTIONS | ({} if think is None else {"think": think}))).text()
    assert asked == [None, {"enable_thinking": True}, {"enable_thinking": False}]


def test_conversations_pass_on_what_was_said(model: llm.Model) -> None:
    conversation = model.conversation()
    conversation.prompt("My name is Ada.", system="Be brief.", **OPTIONS).text()
    response = conversation.prompt("What is my name?", **OPTIONS)
    response.text()
    messages = models._messages(response.prompt)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert (messages[0]["content"], messages[1]["content"]) == ("Be brief.", "My name is Ada.")
    assert response.json()["timings"]["cache_n"] > 0
    assert response.usage().details == {"cached_tokens": response.json()["timings"]["cache_n"]}
    changed = conversation.prompt("And now?", system="Answer in French.", **OPTIONS)
    changed.text()
    messages = models._messages(changed.prompt)
    assert [m["content"] for m in messages if m["role"] == "system"] == ["Answer in French."]


def test_one_model_stays_loaded(model: llm.Model) -> None:
    model.prompt("Hi", **OPTIONS).text()
    kept = models._loaded
    llm.get_model(SMOLLM2).prompt("Hi again", **OPTIONS).text()
    assert models._loaded is kept
    assert kept is not None
    model.prompt("Hi", **{**OPTIONS, "n_ctx": 512}).text()
    assert models._loaded is not kept
    with pytest.raises(Exception, match="closed"):
        kept[1].n_ctx()


def test_a_schema_shapes_the_answer(model: llm.Model) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    options = {**OPTIONS, "max_tokens": 40}
    answer = json.loads(model.prompt("Ada is 36 years old.", schema=schema, **options).text())
    assert isinstance(answer["age"], int)


@pytest.mark.parametrize(
    ("value", "meant"), [("false", False), ("True", True), (False, False), ("budget=4", "budget=4")]
)
def test_speculate_reads_words(value: str | bool, meant: str | bool) -> None:
    assert models.MaskProbe.Options(speculate=value).speculate == meant


def test_plain_decoding_can_be_asked_for(model: llm.Model) -> None:
    response = model.prompt("Name a colour.", **{**OPTIONS, "speculate": False})
    response.text()
    assert response.json()["timings"]["acceptance_length"] == 1.0
