"""Markdown as HTML that is safe to show, for what models write.

Knows text alone. HTML in the text stays text, an image becomes a link, and links lead to the web or to mail. Time is
bounded for any text: markdown-it's goes by length, and Pygments, whose may go by its square, is given up on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import format as format_tokens
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MOST_TEXT = 2**16  # characters
_SECONDS = 0.25  # for the colours of a block of code; of all, four times as many
_SCHEMES = ("http", "https", "mailto")
# Some of Pygments' expressions take the square of a line's length for one token.
_MOST_CODE, _MOST_LINE = 20_000, 500
_MOST_LEVELS = 100
_HEADINGS = 2  # levels above those of the text: the page's and the message's


def to_html(text: str) -> str:
    """CommonMark with tables and strikethrough; single line breaks are kept, as chats mean them.

    Raises:
        ValueError: the text is longer than MOST_TEXT or nested too deeply.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"the text has {len(text)} characters; at most {MOST_TEXT} are rendered")
    markdown, env = _markdown(), {"end": time.monotonic() + 4 * _SECONDS}
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
    inner = _coloured(code, language) if time.monotonic() < env["end"] else escape(code)
    return (
        f'<div class="code"><div class="bar"><span>{escape(language)}</span>'
        '<button type="button" class="copy" aria-label="Copy code">Copy</button></div>'
        f"<pre><code>{inner}</code></pre></div>\n"
    )


@lru_cache(maxsize=64)  # a text that grows has the same blocks again and again
def _coloured(code: str, language: str) -> str:
    """Code whose tokens have Pygments' classes, if it knows the language and is quick with it."""
    if len(code) > _MOST_CODE or max(map(len, code.split("\n"))) > _MOST_LINE:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
        return str(format_tokens(_in_time(lexer.get_tokens(code)), HtmlFormatter(nowrap=True)))
    except (ClassNotFound, TimeoutError):
        return escape(code)


def _in_time(tokens: Iterable[Any]) -> Iterator[Any]:
    end = time.monotonic() + _SECONDS
    for token in tokens:
        yield token
        if time.monotonic() > end:
            raise TimeoutError
