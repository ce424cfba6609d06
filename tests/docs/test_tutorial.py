"""The tutorial: its commands and programs are run as they stand, in order, and print what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pexpect
import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
PORT = "8080"  # the page's
DEADLINE = 300  # seconds; for commands that end early unless something is broken
NUMBER = r"\d+(?:\.\d+)?"
PARTS = re.compile(rf"(\.\.\.|{NUMBER}|\s+)")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
PROMPT = r"\x1b\[\?2004h"  # bracketed paste begins: a line may be typed


def blocks(language: str) -> list[str]:
    return [text for name, text in _blocks() if name == language]


def _blocks() -> list[tuple[str, str]]:
    """Language and text of each block of the page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def steps() -> Iterator[tuple[str, str, list[str]]]:
    """Blocks that are done, each with the lines that the page shows behind it."""
    found = _blocks()
    for (language, text), (following, shown) in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "text":
            yield language, text, shown.splitlines() if following == "text" else []


def assert_shows(output: str, lines: list[str]) -> None:
    """The lines are in the output, in this order. Any number stands for a number, and ... for anything."""
    at = 0
    for line in lines:
        match = re.compile("".join(map(_pattern, PARTS.split(line.strip())))).search(output, at)
        assert match, f"the page shows {line!r}, which is not among\n{output[at:]}"
        at = match.end()


def _pattern(part: str) -> str:
    if part == "...":
        return ".*"
    if part[:1].isdigit():
        return NUMBER
    return r"\s+" if part.isspace() else re.escape(part)


class Reader:
    """Somebody who does what the page says, in a folder and at a port of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = str(free.getsockname()[1])
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "MASKPROBE_API"))}
        self._env = ours | {
            "PATH": path,
            "HOME": str(folder),
            "NO_COLOR": "1",
            "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "OMP_WAIT_POLICY": "passive",  # threads that spin make a busy machine crawl
        }

    def saves(self, program: str) -> None:
        """A program begins with the name of its file."""
        name = program.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name), f"a program must begin with its name, not {name}"
        (self._folder / name).write_text(program.replace(PORT, self._port), encoding="utf-8")

    def runs(self, commands: str) -> str:
        """What they print."""
        done = subprocess.run(
            ["bash", "-e", "-c", commands.replace(PORT, self._port)],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout

    def types(self, command: str, messages: list[str]) -> str:
        """What the command shows in a terminal to somebody who types these lines."""
        program, *arguments = shlex.split(command)
        child = pexpect.spawn(
            program, arguments, DEADLINE, cwd=self._folder, env=self._env, encoding="utf-8", dimensions=(40, 200)
        )
        shown = ""
        for message in messages:
            child.expect(PROMPT)
            shown += child.before
            child.send(message + "\r")
        shown += child.read()
        child.wait()
        assert child.exitstatus == 0, shown
        return ESCAPES.sub("", shown)

    @contextmanager
    def leaves_running(self, command: str) -> Iterator[str]:
        """A server's first line; Ctrl-C ends it."""
        with subprocess.Popen(
            shlex.split(command.replace(PORT, self._port)),
            cwd=self._folder,
            env=self._env,
            stderr=subprocess.PIPE,
            text=True,
            # What runs in the background of a script has Ctrl-C ignored, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            try:
                assert process.stderr is not None
                yield process.stderr.readline().replace(self._port, PORT)
                process.send_signal(signal.SIGINT)
                assert process.wait(DEADLINE) == 0
            finally:
                process.kill()


def without_pip(commands: str) -> str:
    return "".join(line for line in commands.splitlines(keepends=True) if not line.startswith("pip install "))


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    with ExitStack() as left_running:
        for language, text, shown in steps():
            commands = without_pip(text)
            if language == "python":
                reader.saves(text)
            elif commands.startswith("maskprobe serve"):
                assert_shows(left_running.enter_context(reader.leaves_running(commands)), shown)
            elif commands.startswith("maskprobe chat"):
                said = [line.removeprefix("> ") for line in shown if line.startswith("> ")]
                assert_shows(reader.types(commands, said), [line for line in shown if not line.startswith("> ")])
            else:
                assert_shows(reader.runs(commands), shown)


def test_every_step_is_there_and_every_program_is_run() -> None:
    commands = "\n".join(blocks("bash"))
    named = set(re.findall(r"^maskprobe (\w+)", commands, re.MULTILINE))
    assert named == {"doctor", "generate", "race", "chat", "serve", "tune", "bench"}
    programs = [text.splitlines()[0].removeprefix("# ") for text in blocks("python")]
    assert len(programs) >= 3
    assert all(f"python {name}" in commands for name in programs)
    assert {language for language, _ in _blocks()} == {"bash", "python", "text"}


def test_what_is_installed_is_in_an_extra() -> None:
    """Of ours by their names; other packages by those that the tests have."""
    tested = {Requirement(text).name for text in EXTRAS["test"]}
    lines = [line for text in blocks("bash") for line in text.splitlines() if line.startswith("pip install ")]
    asked = [Requirement(text) for line in lines for text in shlex.split(line)[2:]]
    assert any(requirement.extras for requirement in asked)
    for requirement in asked:
        if requirement.name == "maskprobe":
            assert requirement.extras <= set(EXTRAS), requirement
        else:
            assert requirement.name in tested, requirement


def test_what_is_not_printed_is_noticed() -> None:
    assert_shows("one\n12 tokens in 3.5 s\nend", ["7 tokens ... s", "end"])
    for lines in (["12 words"], ["end", "one"], ["12 tokens in s"]):
        with pytest.raises(AssertionError, match="the page shows"):
            assert_shows("one\n12 tokens in 3.5 s\nend", lines)
