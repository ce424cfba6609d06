"""Markdown as HTML that is safe to show, for what models write.

Knows text alone. HTML in the text stays text, an image becomes a link, and links lead to the web or to mail. Time is
bounded for any text: markdown-it needs it by length, and Pygments, which has no such bound, is given up on.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from ..chat.time_limit import within

MOST_TEXT = 2**17  # characters
SECONDS = 1.0  # with colours, and again without
_SCHEMES = ("http", "https", "mailto")
# Some of Pygments' expressions take the square of a line's length in one step, which no time limit ends.
_MOST_CODE, _MOST_LINE = 20_000, 500
_MOST_LEVELS = 100
_HEADINGS = 2  # levels above those of the text: the page's and the message's


def to_html(text: str) -> str:
    """CommonMark with tables and strikethrough; single line breaks are kept, as chats mean them.

    Raises:
        ValueError: the text is nested too deeply.
        TimeoutError: it takes too long.
    """
    try:
        return within(SECONDS, lambda: _render(text, {"colours": True}))
    except TimeoutError:
        return within(SECONDS, lambda: _render(text, {"colours": False}))


def _render(text: str, env: MutableMapping[str, Any]) -> str:
    markdown = _markdown()
    tokens = markdown.parse(text, env)
    if any(token.level >= _MOST_LEVELS - 1 for token in tokens):  # markdown-it leaves out what lies deeper
        raise ValueError(f"the text is nested deeper than {_MOST_LEVELS} levels")
    return str(markdown.renderer.render(tokens, markdown.options, env))


class _Renderer(RendererHTML):
    """Elements that the page has its own ideas of."""

    def fence(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        return _code_block(tokens[i].content, (tokens[i].info.split() or [""])[0], env)

    def code_block(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        return _code_block(tokens[i].content, "", env)

    def table_open(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        return '<div class="scroll"><table>\n'

    def table_close(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        return "</table></div>\n"

    def link_open(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        tokens[i].attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
        return str(self.renderToken(tokens, i, options, env))

    def heading_open(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        tokens[i].tag = f"h{min(6, int(tokens[i].tag[1:]) + _HEADINGS)}"
        return str(self.renderToken(tokens, i, options, env))

    heading_close = heading_open

    def td_open(self, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        if style := tokens[i].attrs.pop("style", None):  # the page's policy allows none; text-align:right
            tokens[i].attrs["class"] = str(style).partition(":")[2]
        return str(self.renderToken(tokens, i, options, env))

    th_open = td_open


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    options = {"html": False, "linkify": False, "breaks": True, "maxNesting": _MOST_LEVELS}
    markdown = MarkdownIt("commonmark", options, renderer_cls=_Renderer)
    markdown.validateLink = _leads_out  # type: ignore[method-assign]
    return markdown.enable(["table", "strikethrough"]).disable("image")


def _leads_out(url: str) -> bool:
    try:
        return urlsplit(url).scheme in _SCHEMES
    except ValueError:
        return False


def _code_block(code: str, language: str, env: MutableMapping[str, Any]) -> str:
    inner = _coloured(code, language) if env["colours"] else escape(code)
    return (
        f'<div class="code"><div class="bar"><span>{escape(language)}</span>'
        '<button type="button" class="copy" aria-label="Copy code">Copy</button></div>'
        f"<pre><code>{inner}</code></pre></div>\n"
    )


@lru_cache(maxsize=64)  # a text that grows has the same blocks again and again
def _coloured(code: str, language: str) -> str:
    """Code whose tokens have Pygments' classes, if it knows the language."""
    if len(code) > _MOST_CODE or max(map(len, code.split("\n"))) > _MOST_LINE:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))
