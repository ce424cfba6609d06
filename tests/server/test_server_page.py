"""The chat page, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from server_fixtures import Gate, fetch, serving, wait_for_metric

from maskprobe import MaskProbeLlama

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRED = "MASKPROBE_TEST_BROWSER"  # set where the tests must not be left out
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        missing = f"no browser to test the page in: apt-get install chromium (looked for {', '.join(BROWSERS)})"
        assert REQUIRED not in os.environ, missing
        pytest.skip(missing)
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a fresh session; nothing may break its policy or its script."""
    page = browser.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Policy" in message.text else None)
    yield page
    page.context.close()
    assert complaints == []


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def script_model(monkeypatch: pytest.MonkeyPatch, llm: MaskProbeLlama, text: str) -> list[Any]:
    """Lets the model say a text; gives the messages that it is sent."""
    sent: list[Any] = []

    def answer(messages: Any, **options: Any) -> Iterator[dict[str, Any]]:
        sent.append(messages)
        delta = {"role": "assistant", "content": text}
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}

    monkeypatch.setattr(llm, "create_chat_completion", answer)
    return sent


def test_answers_stream_with_figures(page: Page, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    page.goto(url)
    expect(page.get_by_text("Ask smollm2")).to_be_visible()
    say(page, "Name the seven days of the week, one on each line.")
    answer = page.locator("article.assistant")
    expect(answer.locator("p")).not_to_be_empty()  # the first words, while the model is held before its second pass
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    begun = answer.locator("p").inner_text()
    gate.open()
    figures = answer.locator(".figures")
    expect(figures).to_have_text(re.compile(r"^\d\.\d\d tokens per pass · \d+\.\d tokens/s · \d+ tokens$"))
    assert len(answer.locator("p").inner_text()) > len(begun)
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_label("Message")).to_be_focused()


def test_stop_and_new_chat(page: Page, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    page.goto(url)
    say(page, "Tell me a long story.")
    expect(page.locator("article.assistant p")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figures")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    gate.open()
    wait_for_metric(url, "llamacpp:requests_processing", 0)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)


def test_conversation_is_sent_whole_and_forgotten_by_new_chat(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    for question in ("one", "two"):
        say(page, question)
        expect(page.locator("article.assistant p").last).to_have_text("Aye.")
        expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    page.get_by_label("Message").press_sequentially("three")
    page.get_by_label("Message").press("Enter")
    expect(page.locator("article.assistant p")).to_have_text("Aye.")
    texts = [[message["content"] for message in messages] for messages in sent]
    assert texts == [["one"], ["one", "Aye.", "two"], ["three"]]


def test_what_the_model_writes_is_text(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script><b>bold</b>'
    script_model(monkeypatch, served, hostile)
    page.goto(url)
    say(page, hostile)
    for kind in ("user", "assistant"):
        expect(page.locator(f"article.{kind} p")).to_have_text(hostile)
        expect(page.locator(f"article.{kind} p *")).to_have_count(0)
    assert page.title() == "maskprobe"


def test_policy_forbids_other_scripts(page: Page, url: str) -> None:
    page.goto(url)
    page.evaluate("""() => {
        const script = document.createElement("script");
        try { script.textContent = "document.title = 'broken'"; document.body.append(script); } catch (error) {}
    }""")
    assert page.title() == "maskprobe"


def test_errors_are_shown_and_the_question_can_be_asked_again(page: Page, url: str) -> None:
    page.goto(url)
    say(page, "word " * 2000)
    expect(page.get_by_role("alert")).to_contain_text("n_ctx=1024")
    say(page, "Hello")
    expect(page.locator("article.assistant p").last).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figures")).to_have_text("stopped")


def test_api_key_is_asked_for_once(page: Page, served: MaskProbeLlama) -> None:
    with serving(served, api_key="secret") as url:
        page.goto(url)
        for key in ("wrong", "secret"):
            page.get_by_role("textbox", name="API key").fill(key)
            page.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("Ask smollm2")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Ask smollm2")).to_be_visible()
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert page.evaluate("localStorage.length") == 0


def test_page_needs_nothing_from_elsewhere(url: str) -> None:
    html = fetch(url, "/").body.decode()
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "@import" not in html
