"""The chat page: what it keeps over a reload, what it sends of that, and what it forgets."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from chat_page import say, script_model, wait_for_end
from playwright.sync_api import Page, expect
from server_fixtures import DEADLINE, serving

from maskprobe import MaskProbeLlama


def test_conversation_is_sent_whole_and_forgotten_by_new_chat(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    for question in ("one", "two"):
        say(page, question)
        wait_for_end(page)
    page.get_by_role("button", name="New chat").click()
    page.get_by_label("Message").press_sequentially("three")
    page.get_by_label("Message").press("Enter")
    wait_for_end(page)
    texts = [[message["content"] for message in messages] for messages in sent]
    assert texts == [["one"], ["one", "Aye.", "two"], ["three"]]


def test_reload_keeps_the_conversation(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = script_model(monkeypatch, served, {"delta": {"reasoning_content": "Hm."}}, "**Aye.**")
    page.goto(url)
    say(page, "one")
    wait_for_end(page)
    shown = page.locator("article.assistant").inner_text()
    page.reload()
    wait_for_end(page)
    expect(page.locator("article.user p")).to_have_text("one")
    expect(page.locator("article.assistant strong")).to_have_text("Aye.")
    assert page.locator("article.assistant").inner_text() == shown
    say(page, "two")
    wait_for_end(page)
    assert [message["content"] for message in sent[-1]] == ["one", "**Aye.**", "two"]
    page.get_by_role("button", name="New chat").click()
    page.reload()
    expect(page.get_by_text("Ask smollm2")).to_be_visible()
    expect(page.locator("article")).to_have_count(0)


def test_reload_amid_an_answer_keeps_what_came(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    script_model(monkeypatch, served, "Half an", lambda: held.wait(DEADLINE), "answer")
    page.goto(url)
    say(page, "one")
    expect(page.locator("article.assistant .text")).to_have_text("Half an")
    page.reload()
    held.set()
    wait_for_end(page)
    expect(page.locator("article.assistant .text")).to_have_text("Half an")
    expect(page.locator(".figures")).to_have_text("stopped")


def test_settings_reach_the_server_and_are_kept(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_model(monkeypatch, served, "Aye.")
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if "chat/" in request.url else None)
    page.goto(url)
    say(page, "one")
    wait_for_end(page)
    fields = {"System prompt": "Be brief.", "Temperature": "0.5", "Most tokens": "7"}
    page.get_by_role("button", name="Settings").click()
    for name, value in fields.items():
        page.get_by_label(name).fill(value)
    page.get_by_label("Thinking").select_option("Off")
    page.get_by_role("button", name="Save").click()
    page.reload()
    wait_for_end(page)
    page.get_by_role("button", name="Regenerate answer").click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    question = {"role": "user", "content": "one"}
    plain = {"messages": [question], "stream": True, "return_drafted": True}
    assert bodies[0] == plain
    assert bodies[1] == plain | {
        "messages": [{"role": "system", "content": "Be brief."}, question],
        "temperature": 0.5,
        "max_tokens": 7,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    page.get_by_role("button", name="Settings").click()
    for name, value in fields.items():
        expect(page.get_by_label(name)).to_have_value(value)
    page.get_by_label("Temperature").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_be_visible()  # the browser says what is wrong
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Temperature")).to_have_value("0.5")


def test_api_key_is_asked_for_once(page: Page, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    script_model(monkeypatch, served, "**Aye.**")
    with serving(served, api_key="secret") as url:
        page.goto(url)
        for key in ("wrong", "secret"):
            page.get_by_role("textbox", name="API key").fill(key)
            page.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("Ask smollm2")).to_be_visible()
        say(page, "one")
        expect(page.locator("article.assistant strong")).to_have_text("Aye.")
        page.reload()
        expect(page.locator("article.assistant strong")).to_have_text("Aye.")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert "secret" not in page.evaluate("JSON.stringify(localStorage)")


def test_a_full_or_foreign_storage_does_no_harm(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    page.evaluate("localStorage.setItem('maskprobe-conversation', '{broken')")
    page.reload()
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') } }")
    say(page, "one")
    wait_for_end(page)
    expect(page.locator("article.assistant .text")).to_have_text("Aye.")
    assert page.evaluate("localStorage.getItem('maskprobe-conversation')") == "{broken"
