"""`maskprobe generate` in scripts: sampling options, JSON, pipes on both sides."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama, ModelError
from maskprobe.cli import app
from maskprobe.cli.terminal import BROKEN_PIPE

QUESTION = "Name the seven days of the week, one on each line."
FAST = ("--n-threads", "1", "--n-ctx", "512", "--speculation", "budget=4", "--temperature", "0")


@pytest.fixture(scope="module")
def model(model_path: Callable[[str], Path]) -> str:
    return str(model_path("Q4_0"))


def generate(*args: str, stdin: str = "") -> tuple[str, BaseException | None]:
    """Standard output and what was raised."""
    result = CliRunner().invoke(app, ["generate", *args], input=stdin)
    return result.stdout, None if isinstance(result.exception, SystemExit) else result.exception


def test_json_has_the_text_and_its_figures(model: str, llm: MaskProbeLlama) -> None:
    printed, error = generate(QUESTION, "-m", model, *FAST, "--max-tokens", "12", "--json", "--compare")
    assert error is None
    result = json.loads(printed)
    prompt = llm.apply_chat_template([{"role": "user", "content": QUESTION}])
    expected = llm.generate(prompt, max_tokens=12, temperature=0.0)
    assert set(result) == {"model", "text", "finish_reason", "stats", "plain"}
    assert (result["text"], result["finish_reason"]) == (expected.text, "length")
    assert result["stats"]["predicted_n"] == 12
    assert result["stats"]["acceptance_length"] >= 1.0
    assert (result["plain"]["passes"], result["plain"]["acceptance_length"]) == (11, 1.0)


@pytest.mark.parametrize(("worth_it", "n_lines"), [(0.0, 1), (1e9, 2)], ids=["gain", "no gain"])
def test_where_there_is_no_gain_stands_why(
    model: str, monkeypatch: pytest.MonkeyPatch, worth_it: float, n_lines: int
) -> None:
    monkeypatch.setattr("maskprobe.drafting.costs.WORTH_IT", worth_it)
    done = CliRunner().invoke(app, ["generate", QUESTION, "-m", model, *FAST, "--max-tokens", "12", "--compare"])
    lines = done.stderr.strip().splitlines()
    assert len(lines) == n_lines
    assert "x plain llama.cpp (" in lines[0]
    tokens_per_pass = re.search(r"acceptance length ([\d.]+)", lines[0])
    assert tokens_per_pass is not None
    for line in lines[1:]:
        assert line.startswith(f"no gain: this text brought {tokens_per_pass[1]} tokens a pass, and here a pass of two")


def test_a_system_message_comes_first(model: str, llm: MaskProbeLlama) -> None:
    args = (QUESTION, "-m", model, *FAST, "--max-tokens", "16", "--json", "--system", "Answer in French.")
    messages = [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": QUESTION}]
    prompt = llm.apply_chat_template(messages)
    result = json.loads(generate(*args)[0])
    assert result["text"] == llm.generate(prompt, max_tokens=16, temperature=0.0).text
    assert result["stats"]["prompt_n"] == len(prompt)


def test_sampling_options_reach_the_sampler(model: str, llm: MaskProbeLlama) -> None:
    """Each of these leaves one token to choose from, so hot sampling gives the greedy text."""
    options = ("-m", model, *FAST[:-1], "1.8", "--max-tokens", "10", "--raw", "--json")
    greedy = llm.generate("1 2 3 4", max_tokens=10, temperature=0.0).text
    for only_the_best in (("--top-k", "1"), ("--top-p", "0"), ("--min-p", "1")):
        assert json.loads(generate("1 2 3 4", *options, *only_the_best)[0])["text"] == greedy
    open_choice = json.loads(generate("1 2 3 4", *options, "--top-k", "0", "--top-p", "1", "--min-p", "0")[0])
    assert open_choice["text"] != greedy


def test_penalties_and_stops_reach_the_sampler(model: str, llm: MaskProbeLlama) -> None:
    options = ("-m", model, *FAST, "--max-tokens", "24", "--raw", "--json")
    penalized = llm.generate("a b a b a b", max_tokens=24, temperature=0.0, repeat_penalty=1.8).text
    assert json.loads(generate("a b a b a b", *options, "--repeat-penalty", "1.8")[0])["text"] == penalized
    plain = llm.generate("1, 2, 3, 4,", max_tokens=24, temperature=0.0).text
    stopped = json.loads(generate("1, 2, 3, 4,", *options, "--stop", "nowhere", "--stop", " 8")[0])
    assert (stopped["text"], stopped["finish_reason"]) == (plain[: plain.index(" 8")], "stop")


def test_a_pipe_is_the_prompt_where_none_is_given(model: str) -> None:
    options = ("-m", model, *FAST, "--max-tokens", "6", "--raw")
    expected, _ = generate("1 2 3 4", *options)
    assert generate(*options, stdin="1 2 3 4\n")[0] == expected
    assert generate("-", *options, stdin="1 2 3 4")[0] == expected
    assert generate("1 2 3 4", *options, stdin="not read")[0] == expected


def test_bytes_that_are_no_text_are_replaced(model: str) -> None:
    command = [sys.executable, "-m", "maskprobe.cli", "generate", "-m", model, *FAST, "--max-tokens", "2"]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=b"na\xefve", capture_output=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr


SWITCH = (
    "{{ messages[-1].content }}{% if enable_thinking is defined %}{{ ' yes' if enable_thinking else ' no' }}{% endif %}"
)


def test_a_template_file_and_its_switch_of_thinking(model: str, llm: MaskProbeLlama, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(SWITCH, "utf-8")
    fast = ("-m", model, *FAST, "--max-tokens", "2", "--json", "--chat-template-file", str(file))
    for option, end in (((), ""), (("--think",), " yes"), (("--no-think",), " no")):
        printed, error = generate("One, two", *fast, *option)
        assert error is None
        assert json.loads(printed)["stats"]["prompt_n"] == len(llm.tokenize("One, two" + end))
    for missing in (tmp_path / "none.jinja", tmp_path):
        error = generate("Hi", "-m", model, *FAST, "--chat-template-file", str(missing))[1]
        assert isinstance(error, ValueError)
        assert str(missing) in str(error)
    file.write_text("{% if %}", "utf-8")
    assert "chat_template is no Jinja template: line 1" in str(generate("Hi", *fast)[1])


def test_a_template_without_a_switch_of_thinking_says_so(model: str) -> None:
    for option in ("--think", "--no-think"):
        error = generate("Hi", "-m", model, *FAST, option)[1]
        assert isinstance(error, ValueError)
        assert "cannot switch thinking" in str(error)
    assert "--think needs the chat template" in str(generate("Hi", "-m", model, *FAST, "--raw", "--no-think")[1])


def test_raw_and_system_exclude_each_other(model: str) -> None:
    _, error = generate("Hi", "-m", model, "--raw", "--system", "Be brief.")
    assert isinstance(error, ValueError)
    assert "leave out --raw" in str(error)


def test_a_model_without_a_template_says_what_to_do(tiny_path: Callable[[str], Path]) -> None:
    tiny = str(tiny_path("llama"))
    printed, error = generate("Hi", "-m", tiny, *FAST, "--max-tokens", "4")
    assert isinstance(error, ModelError)
    assert "llama.gguf has no chat template; --raw" in str(error)
    assert printed == ""
    assert generate("Hi", "-m", tiny, *FAST, "--max-tokens", "4", "--raw")[1] is None


def test_text_comes_as_it_is_made_and_a_closed_pipe_ends_it_quietly(model: str) -> None:
    command = [sys.executable, "-m", "maskprobe.cli", "generate", "1, 2, 3,", "-m", model, *FAST, "--raw"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # which would hide buffers
    with subprocess.Popen(
        [*command, "--max-tokens", "450"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        assert process.poll() is None, "the first text came only with the last"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == BROKEN_PIPE


def run(*args: str, stdin: bytes = b"", stdout: Any = subprocess.PIPE, close: str = "") -> tuple[int, bytes, str]:
    """The exit code, the output and what was said beside it; close: closes these streams of the process."""
    command = [sys.executable, "-m", "maskprobe.cli", *args]
    if close:
        command = ["sh", "-c", f'"$@" {close}', "sh", *command]
    env = os.environ | {"NO_COLOR": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=60, env=env)
    return done.returncode, done.stdout or b"", done.stderr.decode()


def test_texts_of_other_systems_are_the_same(model: str) -> None:
    """A mark at the beginning and other ends of lines are no part of a text."""
    options = ("generate", "-m", model, *FAST, "--max-tokens", "6", "--raw", "--json")
    texts = (b"One,\ntwo,\n", b"\xef\xbb\xbfOne,\r\ntwo,\r\n")
    answers = [json.loads(run(*options, stdin=text)[1]) for text in texts]
    assert answers[0]["text"] == answers[1]["text"]
    assert answers[0]["stats"]["prompt_n"] == answers[1]["stats"]["prompt_n"]


@pytest.mark.parametrize("arguments", [("generate", "Hi", "--max-tokens", "3"), ("info",), ("models",)], ids=str)
def test_output_that_takes_nothing_is_one_line(arguments: tuple[str, ...], model: str) -> None:
    named = ("-m", model, *FAST) if arguments[0] == "generate" else (model,) if arguments[0] == "info" else ()
    with Path("/dev/full").open("wb") as full:
        code, _, errors = run(*arguments, *named, stdout=full)
    assert (code, errors.splitlines()[-1]) == (1, "maskprobe: No space left on device")
    assert "Traceback" not in errors
    for close in (">&-", "2>&-", "<&-"):
        code, _, errors = run(*arguments, *named, close=close)
        assert (code, "Traceback" in errors) == (0, False), (close, errors)


def test_a_path_that_is_no_text(model: str, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.gguf")
    os.symlink(model, path)
    code, output, errors = run("generate", "Hi", "-m", path, *FAST, "--max-tokens", "3", "--json")
    assert (code, json.loads(output)["model"]) == (0, "a\udcff.gguf"), errors
    code, output, errors = run("info", path)
    assert (code, b"a?.gguf" in output) == (0, True), errors
    code, _, errors = run("generate", "Hi", "-m", path + "-not")
    assert (code, errors.count("\n")) == (1, 1)


@pytest.mark.parametrize("temperature", ["1e-45", "1e-39", "1e-30", "1e-6"])
def test_the_least_temperatures_are_greedy(temperature: str, model: str) -> None:
    options = ("1 2 3 4", "-m", model, *FAST[:-1], temperature, "--max-tokens", "8", "--raw")
    assert generate(*options)[0] == generate("1 2 3 4", "-m", model, *FAST, "--max-tokens", "8", "--raw")[0]
