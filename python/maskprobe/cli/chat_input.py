"""Where the messages of a chat come from: an edited line with a history, or the lines of a pipe.

Knows keys and files; nothing of models.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.utils import is_dumb_terminal

PROMPT, CONTINUATION = "> ", "  "


def typed_messages() -> Iterator[str]:
    """Messages typed at a terminal, until Ctrl-D, or Ctrl-C when nothing is typed."""
    with create_app_session(output=_output()):
        session: PromptSession[str] = PromptSession(
            history=_history(), multiline=True, prompt_continuation=CONTINUATION, key_bindings=_keys()
        )
        while True:
            try:
                message = session.prompt(PROMPT)
            except KeyboardInterrupt:
                if session.default_buffer.text:
                    continue
                return
            except EOFError:
                return
            yield message


def piped_messages(lines: Iterable[str]) -> Iterator[str]:
    """One message per line; a backslash at its end joins the next."""
    message = ""
    for line in lines:
        message += line.removesuffix("\n")
        if message.endswith("\\"):
            message = message[:-1] + "\n"
            continue
        yield message
        message = ""
    if message:
        yield message


def history_file() -> Path:
    """Where typed messages are remembered."""
    return Path(platformdirs.user_state_dir("maskprobe", appauthor=False)) / "chat-history"


def _output() -> Output:
    """Where lines are edited; not standard output if that is a file, for the answers alone."""
    return PlainTextOutput(sys.stderr) if is_dumb_terminal() else create_output(always_prefer_tty=True)


def _history() -> History:
    """The remembered messages; those of this chat alone where nothing can be written."""
    path = history_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # what people type is theirs
        with path.open("ab"):
            return FileHistory(path)
    except OSError:
        return InMemoryHistory()


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys
