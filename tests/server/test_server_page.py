"""The chat page, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from server_fixtures import DEADLINE, Gate, serving, wait_for_metric

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
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield page
    page.context.close()
    assert complaints == []


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def wait_for_end(page: Page) -> None:
    expect(page.get_by_role("button", name="Regenerate answer")).to_be_visible()


Part = str | dict[str, Any] | Callable[[], Any]


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


# --- answers -------------------------------------------------------------------------------------------


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


def test_reasoning_is_open_while_it_comes_and_folded_after(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    thought = {"delta": {"reasoning_content": "Let me see: <b>"}}
    script_model(monkeypatch, served, thought, lambda: held.wait(DEADLINE), "Aye.")
    page.goto(url)
    say(page, "one")
    expect(page.get_by_text("Let me see: <b>")).to_be_visible()
    held.set()
    wait_for_end(page)
    expect(page.get_by_text("Let me see: <b>")).to_be_hidden()
    page.get_by_text("Reasoning").click()
    expect(page.get_by_text("Let me see: <b>")).to_be_visible()
    sent = script_model(monkeypatch, served, "Aye.")
    say(page, "two")
    wait_for_end(page)
    assert sent[0][1] == {"role": "assistant", "content": "Aye."}


def test_tool_calls_are_shown(page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"<b>"}'}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    script_model(monkeypatch, served, *({"delta": {"tool_calls": [piece]}} for piece in pieces))
    page.goto(url)
    say(page, "one")
    wait_for_end(page)
    expect(page.locator(".call")).to_have_text(['Calls weather{"city": "<b>"}', "Calls time{}"])


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


def test_shading_shows_what_was_drafted(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [
        ("Say ", [True]),
        ("*two", [False]),
        (" words*", [True, True]),
        (" `in", [False]),
        (" code`", [True]),
        ("", [True]),  # a token whose text is held back
        (" or", [False, False]),
        (" [a", [False]),
        (" link](https://a.example).", [True]),
        ("\n```python\n", [False]),
        ("print(1)\n", [True]),
        ("```", [False]),
    ]
    script_model(monkeypatch, served, *({"delta": {"content": text}, "drafted": flags} for text, flags in pieces))
    page.goto(url)
    say(page, "one")
    wait_for_end(page)
    shaded = "[...(CSS.highlights.get('drafted') ?? [])].map(range => range.toString())"
    shaded = shaded.replace("range.toString()", "range.startContainer.data.slice(range.startOffset, range.endOffset)")
    assert page.evaluate(shaded) == []
    button = page.get_by_role("button", name="Drafts")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("Shaded text was drafted")).to_be_visible()
    assert page.evaluate(shaded) == ["Say", "words", "code", "link", ".", "print", "(", "1", ")"]
    page.reload()
    wait_for_end(page)
    assert page.evaluate(shaded) == ["Say", "words", "code", "link", ".", "print", "(", "1", ")"]
    button.click()
    assert page.evaluate(shaded) == []


def test_chat_formats_that_do_not_tell_drafts_answer_without(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_model(monkeypatch, served, "Aye.")
    scripted = served.create_chat_completion

    def answer(messages: Any, *, return_drafted: bool = False, **options: Any) -> Any:
        if return_drafted:
            raise ValueError("return_drafted needs a chat format")
        return scripted(messages, **options)

    monkeypatch.setattr(served, "create_chat_completion", answer)
    page.goto(url)
    say(page, "one")
    expect(page.locator("article.assistant .text")).to_have_text("Aye.")


# --- Markdown ------------------------------------------------------------------------------------------

MARKDOWN = """# Title

| a | b |
|---|---|
| 1 | 2 |

1. *first*
2. [link](https://a.example)

```python
def f():
    return "<b>"
```
"""


def test_markdown_is_rendered_and_copied(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    script_model(monkeypatch, served, *re.findall(r"\s*\S+|\s+$", MARKDOWN))
    page.goto(url)
    say(page, "one")
    wait_for_end(page)
    answer = page.locator("article.assistant .text")
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    expect(answer.get_by_role("listitem")).to_have_text(["first", "link"])
    expect(answer.get_by_role("cell")).to_have_text(["1", "2"])
    expect(answer.get_by_role("link")).to_have_attribute("rel", "noopener noreferrer")
    expect(answer.locator("pre")).to_have_text('def f():\n    return "<b>"\n', use_inner_text=True)
    plain, keyword = (
        answer.locator(f"pre {part}").first.evaluate("e => getComputedStyle(e).color") for part in ("code", ".k")
    )
    assert plain != keyword
    page.get_by_role("button", name="Copy code").click()
    assert page.evaluate("navigator.clipboard.readText()") == 'def f():\n    return "<b>"\n'
    expect(page.get_by_role("status")).to_have_text("Copied.")
    page.get_by_role("button", name="Copy answer").click()
    assert page.evaluate("navigator.clipboard.readText()") == MARKDOWN


def test_text_that_cannot_be_rendered_is_shown_as_it_is(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "> " * 200 + "*deep*"
    script_model(monkeypatch, served, text)
    page.goto(url)
    say(page, "one")
    expect(page.locator("article.assistant .text")).to_have_text(text)


HOSTILE = """<img src=x onerror="alert(1)"><script>alert(2)</script><b>bold</b></script>
[a](javascript:alert(3)) <svg/onload=alert(4)> ![b](https://a.example/x.png)
"""


def test_what_the_model_writes_does_nothing(
    page: Page, url: str, served: MaskProbeLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    thought = {"delta": {"reasoning_content": HOSTILE}}
    script_model(monkeypatch, served, thought, *re.findall(r"\s*\S+", HOSTILE))
    page.goto(url)
    say(page, HOSTILE)
    wait_for_end(page)
    expect(page.locator("article.user p")).to_have_text(HOSTILE.strip())
    expect(page.locator("article p *, article .reasoning .plain *")).to_have_count(2)  # a line break and a link
    expect(page.locator("article :is(img, script, b, svg)")).to_have_count(0)
    expect(page.locator("article a")).to_have_attribute("href", "https://a.example/x.png")
    assert page.title() == "maskprobe"
    assert all(request.startswith((url, "data:")) for request in requests)


def test_policy_forbids_other_scripts(page: Page, url: str) -> None:
    page.goto(url)
    page.evaluate("""() => {
        const script = document.createElement("script");
        try { script.textContent = "document.title = 'broken'"; document.body.append(script); } catch (error) {}
        try { document.body.innerHTML = "<b>broken</b>"; } catch (error) {}
    }""")
    assert page.title() == "maskprobe"
    expect(page.get_by_text("broken")).to_have_count(0)


# --- what is kept --------------------------------------------------------------------------------------


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


# --- for everybody -------------------------------------------------------------------------------------


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
