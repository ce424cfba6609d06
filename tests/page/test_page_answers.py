"""The chat page: what an answer looks like, and that it does nothing but stand there."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from chat_page import say, script_model, wait_for_end
from playwright.sync_api import Page, expect
from server_fixtures import DEADLINE

from maskprobe import MaskProbeLlama

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
