"""The chat page: asking, stopping, asking again and editing."""

from __future__ import annotations

import re
import threading

import pytest
from chat_page import say, script_model, wait_for_end
from playwright.sync_api import Page, expect
from server_fixtures import DEADLINE, Gate, wait_for_metric

from maskprobe import MaskProbeLlama


def test_answers_stream_with_figures(page: Page, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    page.goto(url)
    expect(page.get_by_text("Ask smollm2")).to_be_visible()
    say(page, "Name the seven days of the week, one on each line.")
    answer = page.locator("article.assistant")
    expect(answer.locator(".text")).not_to_be_empty()  # the first words, while the model is held before its second pass
    expect(page.get_by_role("log", name="Conversation")).to_have_attribute("aria-busy", "true")
    begun = answer.locator(".text").inner_text()
    gate.open()
    expect(answer.locator(".figures")).to_have_text(
        re.compile(r"^\d\.\d\d tokens per pass · \d+\.\d tokens/s · \d+ tokens$")
    )
    assert len(answer.locator(".text").inner_text()) > len(begun)
    expect(page.get_by_role("log", name="Conversation")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_label("Message")).to_be_focused()


def test_figures_name_plain_decodings_speed(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    say(page, "one")
    expect(page.locator(".figures")).to_have_text(
        "2.50 tokens per pass · 80.0 tokens/s, about 40.0 without drafts · 100 tokens"
    )


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_stop_and_new_chat(by: str, page: Page, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    page.goto(url)
    say(page, "Tell me a long story.")
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    if by == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".figures")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    gate.open()
    wait_for_metric(url, "llamacpp:requests_processing", 0)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)


def test_new_chat_while_an_answer_comes(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    sent = script_model(monkeypatch, served, "first", lambda: held.wait(DEADLINE))
    page.goto(url)
    say(page, "one")
    expect(page.locator("article.assistant .text")).to_have_text("first")
    page.get_by_role("button", name="New chat").click()
    page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 50))")  # for what the old answer's end would do
    assert page.get_by_role("status").inner_text() == "A new chat."
    say(page, "two")
    held.set()
    wait_for_end(page)
    expect(page.locator("article")).to_have_count(2)
    assert [[message["content"] for message in messages] for messages in sent] == [["one"], ["two"]]


def test_regenerate_asks_the_same_again(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    say(page, "one")
    wait_for_end(page)
    say(page, "two")
    wait_for_end(page)
    script_model(monkeypatch, served, "Nay.")
    page.get_by_role("button", name="Regenerate answer").click()
    expect(page.locator("article.assistant .text")).to_have_text(["Aye.", "Nay."])
    wait_for_end(page)
    sent = script_model(monkeypatch, served, "Well.")
    page.get_by_role("button", name="Regenerate answer").click()
    wait_for_end(page)
    assert [message["content"] for message in sent[0]] == ["one", "Aye.", "two"]
    expect(page.locator("article")).to_have_count(4)


def test_the_last_question_can_be_edited(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    for question in ("one", "two"):
        say(page, question)
        wait_for_end(page)
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Message")).to_have_value("two")
    expect(page.get_by_text("Editing your last message")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Message")).to_have_value("")
    expect(page.locator("article")).to_have_count(4)
    page.get_by_role("button", name="Edit").click()
    say(page, "three")
    wait_for_end(page)
    expect(page.locator("article.user p")).to_have_text(["one", "three"])
    assert [message["content"] for message in sent[-1]] == ["one", "Aye.", "three"]


def test_errors_are_shown_and_the_question_can_be_asked_again(page: Page, url: str) -> None:
    page.goto(url)
    say(page, "word " * 2000)
    expect(page.get_by_role("alert")).to_contain_text("n_ctx=1024")
    say(page, "Hello")  # the question that had no answer is left out
    expect(page.locator("article.assistant .text").last).not_to_be_empty()
    page.keyboard.press("Escape")
    wait_for_end(page)
    expect(page.get_by_role("alert")).to_have_count(1)
    page.get_by_role("button", name="Regenerate answer").click()
    expect(page.locator("article.assistant .text").last).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    wait_for_end(page)
