"""Chat templates that do not end are ended, and so are the threads that render them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models

from maskprobe import MaskProbeLlama, ModelError, Speculation
from maskprobe.chat import formats as chat
from maskprobe.chat.time_limit import THREAD, within

MESSAGES = [{"role": "user", "content": "hi"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
ENDLESS = {
    "with output": LOOP + "x{% endfor %}{% endfor %}{% endfor %}",
    "without output": LOOP + "{% endfor %}{% endfor %}{% endfor %}",
    "in a block": "{% set x %}" + LOOP + "{% endfor %}{% endfor %}{% endfor %}{% endset %}",
    "in a macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
    "over filters": "{% for a in range(99999) %}{{ range(99999) | map('string') | select('none') | list }}{% endfor %}",
}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "TEMPLATE_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def _nothing_goes_on() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(10.0)
            assert not thread.is_alive()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_does_not_end_is_ended(name: str, tmp_path: Path) -> None:
    path = tiny_models.make("llama", tmp_path / "endless.gguf", chat_template=ENDLESS[name])
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4)) as llm:
        for ask in (llm.apply_chat_template, llm.create_chat_completion):
            with pytest.raises(ModelError, match=r"endless\.gguf has a chat template that does not end .*chat_format"):
                ask(MESSAGES)
        assert llm.generate("still there", max_tokens=2, temperature=0.0).tokens


@pytest.mark.usefixtures("soon")
def test_a_named_format_is_used_in_its_place(tmp_path: Path) -> None:
    path = tiny_models.make("llama", tmp_path / "endless.gguf", chat_template=ENDLESS["with output"])
    with MaskProbeLlama(path, n_ctx=256, n_threads=1, speculation=Speculation(budget=4), chat_format="chatml") as llm:
        assert llm.create_chat_completion(MESSAGES, max_tokens=2)["choices"]


def forever() -> None:
    while True:
        with contextlib.suppress(Exception):
            int("0")


def test_what_catches_exceptions_is_ended_too() -> None:
    with pytest.raises(TimeoutError, match=r"did not end within 0\.05 s"):
        within(0.05, forever)


def test_what_swallows_its_end_is_ended_again() -> None:
    swallowed = []

    def call() -> None:
        try:
            forever()
        except SystemExit:  # as a finalizer does, where the end may come
            swallowed.append(True)
        forever()

    with pytest.raises(TimeoutError):
        within(0.05, call)
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(10.0)
    assert swallowed  # and no thread goes on, as the fixture sees


def test_what_ends_in_time_is_as_without_a_limit() -> None:
    assert within(60.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 7 // 0)


def test_ctrl_c_is_not_held_up() -> None:
    before, caller = signal.signal(signal.SIGINT, signal.default_int_handler), threading.get_ident()

    def interrupted() -> None:
        signal.pthread_kill(caller, signal.SIGINT)
        forever()

    try:
        with pytest.raises(KeyboardInterrupt):
            within(60.0, interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
