"""Markdown as the server renders it for the page, and the page's files."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_fixtures import fetch, serving

from maskprobe import MaskProbeLlama
from maskprobe.server.markdown import MOST_TEXT, to_html
from maskprobe.server.page import PAGE_PATHS

ELEMENTS = {
    "a",
    "blockquote",
    "br",
    "button",
    "code",
    "div",
    "em",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "ul",
}
ELEMENTS |= {"h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"href", "title", "target", "rel", "class", "start", "type", "aria-label"}


class Seen(HTMLParser):
    """What a browser would make of HTML: elements, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def check_safe(html: str) -> Seen:
    seen = Seen(html)
    assert seen.tags <= ELEMENTS
    assert {name for name, _ in seen.attributes} <= ATTRIBUTES
    for name, value in seen.attributes:
        assert name != "href" or re.match(r"(https?|mailto):", value or ""), value
    return seen


def test_markdown_is_rendered() -> None:
    html = to_html("# Days\n\n1. *Mon*\n2. **Tue**\n\nfirst\nsecond\n\n|a|b|\n|-|-:|\n|1|~~2~~|\n\n> said")
    for part in (
        "<h3>Days</h3>",
        "<li><em>Mon</em></li>",
        "<strong>Tue</strong>",
        "first<br />\nsecond",
        '<td class="right"><s>2</s></td>',
        "<blockquote>",
    ):
        assert part in html
    check_safe(html)


def test_code_is_coloured_and_can_be_copied() -> None:
    html = to_html("```python\ndef f(x):\n    return '<b>'\n```")
    assert '<span class="k">def</span>' in html
    assert '<button type="button" class="copy" aria-label="Copy code">Copy</button>' in html
    assert "def f(x):\n    return '<b>'\n" in check_safe(html).text
    for language in ("", "no such language", '"><script>'):
        html = to_html(f"```{language}\na < b\n```")
        assert "<pre><code>a &lt; b\n</code></pre>" in html
        check_safe(html)


def test_links_lead_out_and_tell_nobody() -> None:
    html = to_html("[a](https://a.example 'b') <mailto:b@c.example> https://plain.example ![i](http://d.example/x.png)")
    assert html.count("<a ") == 3
    assert html.count('target="_blank" rel="noopener noreferrer"') == 3
    check_safe(html)


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "[x](JAVASCRIPT:alert(1)) [x](&#106;avascript:alert(1)) [x](java\tscript:a)",
    "<javascript:alert(1)>",
    "[x](data:text/html,<script>alert(1)</script>) [x](file:///etc/passwd) [x](/v1/models) [x](//e.example) [x](http://[)",
    '[x](https://a.example/"onmouseover="alert(1)) [x](https://a.example "\\" onclick=\\"a")',
    "![x](javascript:alert(1)) ![x](https://a.example/track.png)",
    "[x]: javascript:alert(1)\n\n[x]",
    '```"><img onerror=alert(1)>\n<script>\n```',
    "<!-- --> <![CDATA[ <?php <svg/onload=alert(1)>",
    "<div style='position:fixed'>over all</div>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    check_safe(to_html(f"before {text} after"))
    check_safe(to_html(text))


MARKS = st.sampled_from(
    ["*", "_", "`", "```\n", "> ", "- ", "1. ", "\n", "\n\n", "[", "](", ")", "|", "~~", "#", "    "]
)
SCRIPTS = st.sampled_from(
    ["<b>", "javascript:", '"', "'", "&lt;", "&#0;", "\\", "<!--", "http://x", "\t", "\x00", "é😀"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(MARKS | SCRIPTS | st.just(" word "), max_size=40).map("".join))
def test_any_text_is_safe_and_none_is_lost(text: str) -> None:
    seen = check_safe(to_html(text))
    shown = seen.text + "".join(value or "" for _, value in seen.attributes)
    # What follows ``` or ~~~ in its line, and the name of a reference, is not shown.
    if not any(mark in text for mark in ("```", "~~~", "]")):
        assert shown.count("word") >= text.count("word")


LONG = {
    "quotes": "> " * 60_000,
    "brackets": "[" * 130_000,
    "emphasis": "*a_ " * 30_000,
    "table": "|a" * 300 + "\n" + "|-" * 300 + "\n" + "|\n" * 60_000,
    "java": "```java\n" + ("a " * 249 + "\n") * 39 + "```\n",
    "many blocks": ("```java\n" + ("a " * 249 + "\n") * 5 + "```\n") * 25,
    "empty lines": "```python\n" + " \n" * 9_000,
    "one line of code": "```make\n" + "(" * 60_000,
}


@pytest.mark.parametrize("name", LONG)
def test_any_text_takes_bounded_time(name: str) -> None:
    start = time.monotonic()
    with suppress(ValueError):  # nested too deeply: the page shows it as it is
        check_safe(to_html(LONG[name][:MOST_TEXT]))
    assert time.monotonic() - start < 20.0


def test_code_that_takes_too_long_is_shown_without_colours() -> None:
    for name in ("java", "one line of code"):
        assert "<span class=" not in to_html(LONG[name])


def test_render_route(url: str) -> None:
    assert fetch(url, "/render", {"text": "*a*"}).json() == {"html": "<p><em>a</em></p>\n"}
    assert fetch(url, "/render", {"text": ""}).json() == {"html": ""}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": 1}, "text"),
        ({"text": "a" * (MOST_TEXT + 1)}, "text"),
        (b'{"text": "\\ud800"}', "text"),
        ({"text": "> " * 1000}, "nested deeper than 100"),
        ({"text": "- " * 1000 + "a"}, "nested deeper than 100"),
        (b"[]", "object"),
    ],
)
def test_render_refuses(body: object, message: str, url: str) -> None:
    reply = fetch(url, "/render", body)
    assert reply.status == 400
    assert message in reply.error()["message"]


def test_files_of_the_page_are_open_and_nothing_else_is(served: MaskProbeLlama) -> None:
    with serving(served, api_key="secret") as url:
        for path in PAGE_PATHS:
            reply = fetch(url, path)
            assert (reply.status, len(reply.body) > 0) == (200, True)
            kind = {"css": "text/css", "js": "text/javascript"}.get(path.rpartition(".")[2], "text/html")
            assert reply.headers["Content-Type"] == f"{kind}; charset=utf-8"
            assert fetch(url, path, method="HEAD").body == b""
        assert fetch(url, "/render", {"text": "a"}).status == 401
        for path in ("/page.html", "/static/page.js", "/../page.py", "/page.py"):
            assert fetch(url, path).status == 401


def test_the_page_needs_nothing_from_elsewhere(url: str) -> None:
    policy = fetch(url, "/").headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:" in policy
    for path in PAGE_PATHS:
        text = fetch(url, path).body.decode()
        found = re.findall(r'(?:src|href)="([^"]*)"|from "([^"]*)"|@import|url\(([^)]*)', text)
        for name in filter(None, (name for names in found for name in names)):
            assert name.startswith("data:") or f"/{name.removeprefix('./')}" in PAGE_PATHS
