"""`maskprobe chat`: in a pseudo-terminal as people use it, through pipes, and its conversations in the process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from prompt_toolkit.history import FileHistory, InMemoryHistory
from typer.testing import CliRunner

from maskprobe import MaskProbeLlama, ModelError
from maskprobe.cli import app, chat_input
from maskprobe.cli.chat import Conversation, _talk
from maskprobe.cli.chat_input import piped_messages
from maskprobe.llama import Options

OPTIONS: Options = {"max_tokens": 10, "temperature": 0.0}
ARGS = ("--n-threads", "1", "--n-ctx", "512", "--speculation", "budget=4", "--temperature", "0")
FIGURES = r"\d+ tokens in \d+ passes, acceptance length [\d.]+, [\d.]+ tokens/s"
PROMPT = r"\x1b\[\?2004h|^> |\n> "  # bracketed paste begins, or the prompt of a dumb terminal
CTRL_C, CTRL_D, UP, ALT_ENTER = "\x03", "\x04", "\x1b[A", "\x1b\r"


@pytest.fixture(scope="module")
def model(model_path: Callable[[str], Path]) -> str:
    return str(model_path("Q4_0"))


@pytest.fixture
def conversation(llm: MaskProbeLlama) -> Conversation:
    llm.reset()
    return Conversation(llm, OPTIONS)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder of its own, so that nobody's history is touched."""
    return tmp_path / "home"


@pytest.fixture
def terminal(model: str, home: Path) -> Iterator[Callable[..., pexpect.spawn]]:
    """Starts chats in pseudo-terminals and ends those that are left."""
    home.mkdir()
    started: list[pexpect.spawn] = []

    def start(*args: str, shell: str = "", **env: str) -> pexpect.spawn:
        command = [sys.executable, "-m", "maskprobe.cli", "chat", "-m", model, *ARGS, *args]
        if shell:
            command = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command]
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "XDG_STATE_HOME")}
        environment |= {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "HOME": str(home)} | env
        child = pexpect.spawn(
            command[0],
            command[1:],
            env=environment,
            encoding="utf-8",
            timeout=20,
            dimensions=(40, 160),
            # What runs in the background of a script has Ctrl-C ignored, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        child.logfile_read = Log()
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


class Log(list[str]):
    """What a terminal was sent."""

    def write(self, text: str) -> None:
        self.append(text)

    def flush(self) -> None:
        pass


def ask(child: pexpect.spawn, keys: str, answer: str = FIGURES) -> None:
    child.expect(PROMPT)
    child.send(keys + "\r")
    child.expect(answer)


def saved(child: pexpect.spawn, path: Path) -> list[dict[str, str]]:
    """The messages so far, by /save."""
    ask(child, f"/save {path}", "messages written")
    messages: list[dict[str, str]] = json.loads(path.read_text())
    return messages


def leave(child: pexpect.spawn, keys: str) -> int | None:
    child.expect(PROMPT)
    child.send(keys)
    child.expect(pexpect.EOF)
    child.wait()
    status: int | None = child.exitstatus
    return status


def test_a_conversation_in_a_terminal(terminal: Callable[..., pexpect.spawn], home: Path) -> None:
    child = terminal("--max-tokens", "10")
    child.expect("/help lists commands")
    ask(child, "Say hi.")
    ask(child, "And again.")
    ask(child, UP + UP)
    ask(child, f"one{ALT_ENTER}two\\\rthree")
    messages = saved(child, home / "chat.json")
    assert [m["content"] for m in messages[::2]] == ["Say hi.", "And again.", "Say hi.", "one\ntwo\nthree"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 4
    ask(child, "/stats", r"prompt: (\d+) tokens, (\d+) of them")
    n_prompt, n_cached = map(int, child.match.groups())
    assert 0 < n_cached < n_prompt
    child.expect(f"this chat: 4 answers, {FIGURES}")
    ask(child, "/nonsense", "unknown command /nonsense; /help lists them")
    ask(child, "/help", "/exit +leave")
    ask(child, "/system Answer in French.", "system message: Answer in French.")
    ask(child, "/reset", "a new conversation begins")
    ask(child, "Say hi.")
    messages = saved(child, home / "french.json")
    assert messages[0] == {"role": "system", "content": "Answer in French."}
    assert [m["role"] for m in messages[1:]] == ["user", "assistant"]
    assert leave(child, "/exit\r") == 0


def test_messages_are_remembered_from_chat_to_chat(terminal: Callable[..., pexpect.spawn], home: Path) -> None:
    child = terminal("--max-tokens", "2")
    ask(child, "Say hi.")
    assert leave(child, CTRL_D) == 0
    [history] = home.rglob("chat-history")
    assert history.stat().st_mode & 0o077 == 0
    child = terminal("--max-tokens", "2")
    ask(child, UP)
    assert saved(child, home / "chat.json")[0]["content"] == "Say hi."


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Callable[..., pexpect.spawn], home: Path) -> None:
    child = terminal("--max-tokens", "450")
    ask(child, "Write a long story about a fox.", r"\?2004l[^?]*?\w+ \w+ \w+")
    child.sendintr()
    child.expect("stopped; what came stays")
    ask(child, "Say hi.")
    messages = saved(child, home / "chat.json")
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert messages[1]["content"]
    ask(child, f"typed but not sent{CTRL_C}/stats", "last answer")  # a first Ctrl-C empties the line
    assert leave(child, CTRL_C) == 0


def test_a_dumb_terminal_gets_no_escape_codes(terminal: Callable[..., pexpect.spawn]) -> None:
    child = terminal("--max-tokens", "4", TERM="dumb")
    ask(child, "Say hi.")
    ask(child, "/nonsense", "unknown command")
    assert leave(child, CTRL_D) == 0
    assert "\x1b" not in "".join(child.logfile_read)


def test_no_color_means_no_color(terminal: Callable[..., pexpect.spawn]) -> None:
    child = terminal("--max-tokens", "4", NO_COLOR="1")
    ask(child, "Say hi.")
    ask(child, "/nonsense", "unknown command")
    assert leave(child, CTRL_D) == 0
    styles = {
        code for codes in re.findall(r"\x1b\[([\d;]*)m", "".join(child.logfile_read)) for code in codes.split(";")
    }
    assert styles <= {"", "0", "1", "2", "3", "4", "7"}  # bold, dim and the like, no colours


def test_answers_alone_go_into_a_file(terminal: Callable[..., pexpect.spawn], home: Path) -> None:
    out = home / "answers.txt"
    child = terminal("--max-tokens", "4", shell=f"> {out}")
    ask(child, "Say hi.")
    assert leave(child, "/exit\r") == 0
    text = out.read_text()
    assert text.strip()
    assert "\x1b" not in text
    assert "> " not in text


def test_thinking_is_switched_for_every_answer(llm: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    apply = llm.apply_chat_template
    monkeypatch.setattr(
        llm, "apply_chat_template", lambda messages, **options: asked.append(options) or apply(messages)
    )
    conversation = Conversation(llm, OPTIONS, variables={"enable_thinking": False})
    for question in ("Hi", "And?"):
        "".join(chunk.text for chunk in conversation.answer(question))
    assert asked == [{"chat_template_kwargs": {"enable_thinking": False}}] * 2


def test_a_pipe_is_read_line_by_line(model: str, llm: MaskProbeLlama) -> None:
    lines = "Say hi.\n\n/stats\n/nonsense\nAnd again.\n/exit\nnever read\n"
    command = [sys.executable, "-m", "maskprobe.cli", "chat", "-m", model, *ARGS, "--max-tokens", "10"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    first = llm.generate(llm.apply_chat_template([{"role": "user", "content": "Say hi."}]), **OPTIONS).text
    assert done.stdout.startswith(first + "\n")
    assert done.stdout.endswith("\n")
    assert len(done.stdout) > len(first) + 2
    assert len(re.findall(FIGURES, done.stderr)) == 4  # after each answer, and two in /stats
    assert "unknown command /nonsense" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_backslash_joins_lines_of_a_pipe() -> None:
    assert list(piped_messages(["one\\\n", "two\n", "three\\\n"])) == ["one\ntwo", "three\n"]


def test_later_turns_find_earlier_ones_in_the_kv_cache(conversation: Conversation) -> None:
    conversation.system = "Answer briefly."
    for question in ("Name a colour.", "Name another one.", "And a third."):
        assert "".join(chunk.text for chunk in conversation.answer(question))
    first, second, third = conversation.answers
    assert first.cache_n == 0
    assert second.cache_n > first.prompt_n
    assert third.cache_n > second.cache_n + second.prompt_n


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(conversation: Conversation) -> None:
    answer = conversation.answer("Name the days of the week.")
    came = "".join(next(answer).text for _ in range(3))
    answer.close()
    assert conversation.turns[-1] == {"role": "assistant", "content": came}
    assert conversation.answers == []
    assert "".join(chunk.text for chunk in conversation.answer("Go on."))  # the model is free again
    assert len(conversation.turns) == 4


def test_a_question_that_is_broken_off_before_the_answer_is_taken_back(
    conversation: Conversation,
    llm: MaskProbeLlama,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(passed: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(llm.engine.session, "prefill", interrupted)
        _talk(conversation, ["Name a colour."], interactive=True)
        assert conversation.turns == []
        assert "the question is taken back" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):  # without a terminal, Ctrl-C is meant for the program
            _talk(conversation, ["Name a colour."], interactive=False)
    assert "".join(chunk.text for chunk in conversation.answer("Name a colour."))


def test_a_conversation_that_outgrows_the_context_goes_on(
    conversation: Conversation, llm: MaskProbeLlama, capsys: pytest.CaptureFixture[str]
) -> None:
    _talk(conversation, ["Say hi.", "word " * 2 * llm.n_ctx(), "Say hi again."], interactive=True)
    assert [m["content"] for m in conversation.turns[::2]] == ["Say hi.", "Say hi again."]
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("maskprobe:")]
    assert f"no longer fits n_ctx={llm.n_ctx()}" in line
    assert "/reset" in line


def test_an_answer_that_fills_the_context_says_so(llm: MaskProbeLlama, capsys: pytest.CaptureFixture[str]) -> None:
    def n_tokens(times: int) -> int:
        return len(llm.apply_chat_template([{"role": "user", "content": sentence * times}]))

    sentence = "Write a long story about a fox who learns to read. "
    times = (llm.n_ctx() - n_tokens(0)) // (n_tokens(2) - n_tokens(1))
    assert n_tokens(times) in range(llm.n_ctx() - 16, llm.n_ctx())
    for _ in range(2):  # the second time most of the prompt comes from the KV cache
        _talk(Conversation(llm, {"max_tokens": 100, "temperature": 0.0}), [sentence * times], interactive=True)
        assert f"the context of n_ctx={llm.n_ctx()} tokens is full; /reset" in capsys.readouterr().err


def test_save_says_why_it_cannot(
    conversation: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation.turns = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "Hallo"}]
    there = tmp_path / "there.json"
    for line, said in (
        (f"/save {there}", f"2 messages written to {there}"),
        (f"/save {there}", f"{there} exists and is kept; choose another name"),
        (f"/save {tmp_path}/missing/file", "cannot write"),
        (f"/save {tmp_path}", "exists and is kept"),
        ("/save", "/save needs the name of a file"),
    ):
        _talk(conversation, [line], interactive=True)
        [printed] = capsys.readouterr().err.splitlines()
        assert said in printed
    assert json.loads(there.read_text(encoding="utf-8")) == conversation.turns


def test_the_system_message_can_be_changed_and_removed(conversation: Conversation) -> None:
    _talk(conversation, ["/system Be brief.", "/reset"], interactive=True)
    assert conversation.messages == [{"role": "system", "content": "Be brief."}]
    _talk(conversation, ["/system"], interactive=True)
    assert conversation.messages == []


def test_figures_before_any_answer(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    _talk(conversation, ["/stats"], interactive=True)
    assert capsys.readouterr().err == "no answer yet\n"


def test_bad_options_are_refused_before_the_first_message(model: str) -> None:
    result = CliRunner().invoke(app, ["chat", "-m", model, *ARGS, "--top-p", "2"], input="Hi\n")
    assert isinstance(result.exception, ValueError)
    assert "top_p must be in 0..1, got 2.0" in str(result.exception)


def test_where_no_history_can_be_written_chats_remember_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(chat_input.platformdirs, "user_state_dir", lambda *_, **__: str(tmp_path / "file" / "state"))
    assert isinstance(chat_input._history(), InMemoryHistory)
    monkeypatch.setattr(chat_input.platformdirs, "user_state_dir", lambda *_, **__: str(tmp_path / "state"))
    assert isinstance(chat_input._history(), FileHistory)


def test_a_model_without_a_template_cannot_chat(tiny_path: Callable[[str], Path]) -> None:
    result = CliRunner().invoke(app, ["chat", "-m", str(tiny_path("llama")), *ARGS], input="Hi\n")
    assert isinstance(result.exception, ModelError)
    assert "llama.gguf has no chat template, so it cannot chat" in str(result.exception)
