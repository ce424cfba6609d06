"""What a user does with the chat page, and a model that says what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from maskprobe import MaskProbeLlama

TIMINGS = {
    "cache_n": 0,
    "prompt_n": 1,
    "prompt_ms": 1.0,
    "predicted_n": 100,
    "predicted_ms": 1.0,
    "predicted_per_second": 80.0,
    "acceptance_length": 2.5,
    "plain_per_second": 40.0,
}

Part = str | dict[str, Any] | Callable[[], Any]


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def wait_for_end(page: Page) -> None:
    expect(page.get_by_role("button", name="Regenerate answer")).to_be_visible()


def script_model(monkeypatch: pytest.MonkeyPatch, llm: MaskProbeLlama, *parts: Part) -> list[Any]:
    """Lets the model say texts or send choices, or waits for calls to return; gives the messages that it is sent."""
    sent: list[Any] = []

    def answer(messages: Any, *, before_pass: Callable[[], None], **options: Any) -> Iterator[dict[str, Any]]:
        sent.append(messages)
        for part in parts:
            before_pass()
            if callable(part):
                part()
                continue
            choice = {"delta": {"content": part}} if isinstance(part, str) else part
            yield {"choices": [{"index": 0, "finish_reason": None} | choice]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "timings": TIMINGS}

    monkeypatch.setattr(llm, "create_chat_completion", answer)
    return sent
