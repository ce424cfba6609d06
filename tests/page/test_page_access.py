"""The chat page is for everybody: by keyboard, by ear, on small windows and in the dark."""

from __future__ import annotations

import re
import threading

import pytest
from chat_page import say, script_model, wait_for_end
from playwright.sync_api import Page, expect
from server_fixtures import DEADLINE

from maskprobe import MaskProbeLlama


def test_all_can_be_done_by_keyboard(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = script_model(monkeypatch, served, "Aye.")
    page.goto(url)
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    wait_for_end(page)
    assert sent[0][0]["content"] == "one\ntwo"
    page.get_by_role("button", name="Drafts").focus()
    for name in ("Settings", "New chat", "", "Edit your last question", "Copy answer", "Regenerate answer"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name) if name else page.locator("#log")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Message")).to_be_focused()
    page.get_by_role("button", name="Regenerate answer").press("Enter")
    wait_for_end(page)
    assert len(sent) == 2
    expect(page.get_by_label("Message")).to_be_focused()


def test_a_screen_reader_hears_each_sentence_once(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "First, **this**. Then that!\n\n- a point\n- another\n\nAnd the end"
    script_model(monkeypatch, served, *re.findall(r"\s*\S+", text))
    page.goto(url)
    page.evaluate("""() => {
        window.heard = [];
        new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(
            (node) => window.heard.push(node.textContent)
        ))).observe(document.getElementById("speech"), {childList: true});
    }""")
    say(page, "one")
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")
    heard = " ".join(page.evaluate("window.heard")).split()
    assert heard == ["First,", "this.", "Then", "that!", "-", "a", "point", "-", "another", "And", "the", "end"]
    expect(page.locator("#speech")).to_be_empty()  # nobody meets it twice
    expect(page.get_by_role("log", name="Conversation")).to_have_attribute("aria-live", "off")


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_window(
    width: int, page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "|" + "a column|" * 12 + "\n" + "|---" * 12 + "|\n"
    script_model(monkeypatch, served, f"{'x' * 300}\n\n```\n{'y ' * 200}\n```\n\n{table}\n\n`{'z' * 200}`")
    page.set_viewport_size({"width": width, "height": 640})
    page.goto(url)
    say(page, "w" * 300)
    wait_for_end(page)
    wide = "[...document.querySelectorAll('html, main, article, footer')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wide}.map(e => e.tagName)") == []
    page.get_by_role("button", name="Settings").click()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= width
    for name in ("Cancel", "Save"):
        expect(page.get_by_role("button", name=name)).to_be_in_viewport()


def test_colours_follow_the_system_or_the_settings(page: Page, url: str) -> None:
    def background() -> int:
        return int(re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])

    page.emulate_media(color_scheme="dark")
    page.goto(url)
    assert background() < 64
    page.emulate_media(color_scheme="light")
    assert background() > 192
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Colours").select_option("Dark")
    page.get_by_role("button", name="Save").click()
    assert background() < 64
    page.reload()
    assert background() < 64


def test_who_reads_above_is_not_scrolled_away(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    lines = "line\n\n" * 60
    script_model(monkeypatch, served, lines, lambda: held.wait(DEADLINE), lines)
    page.goto(url)
    say(page, "one")
    log = page.get_by_role("log", name="Conversation")
    rest = "e => e.scrollHeight - e.scrollTop - e.clientHeight"
    expect(page.locator("article.assistant .text p")).to_have_count(60)
    page.wait_for_function("() => { const e = document.getElementById('log'); return e.scrollTop > 100; }")
    assert log.evaluate(rest) < 60
    log.evaluate("e => { e.scrollTop = 10; }")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    held.set()
    wait_for_end(page)
    expect(page.locator("article.assistant .text p")).to_have_count(120)
    assert log.evaluate("e => e.scrollTop") == 10
