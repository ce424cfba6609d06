"""gpt-oss's replies: messages, each with a header that names its channel and whom it is for.

Reasoning is on the channel analysis, calls are for functions.NAME, all else is answer. The prompt's end has written
the first header's start already.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from maskprobe.replies import values
from maskprobe.replies.events import Content
from maskprobe.replies.output import Output
from maskprobe.replies.reader import CutOffError, MalformedError, Reader, Reading
from maskprobe.replies.shapes import Call, Tools

_START = "<|start|>assistant"
_BODY = "<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_TEXT_ENDS = ("<|end|>", "<|return|>", "<|start|>")  # text may speak of calls
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CONTROL = re.compile(r"<\|\w+\|>")


def read(reader: Reader, output: Output, tools: Tools, prompt_end: str) -> Reading[None]:
    """Reads the messages of one reply."""
    header = prompt_end.rpartition(_START)[2] if _START in prompt_end else ""
    leftover: list[str] = []
    try:
        while True:
            if _BODY not in header:
                header = yield from _header(reader, output, header)
            yield from _message(reader, output, tools, header, leftover)
            header = ""
    except CutOffError:
        output.end("".join([*leftover, reader.since_mark(), reader.rest()]), Content)


def _header(reader: Reader, output: Output, header: str) -> Reading[str]:
    """A message's header. Text without one is an answer, and so is what a garbled one holds."""
    while True:
        reader.unmark()
        output.say((yield from reader.blank()))
        plain = not header and (yield from reader.next_is("<|", "to=")) is None
        if plain and (yield from reader.until(("<|channel|>", "<|start|>"), output.say)) is None:
            raise CutOffError
        reader.mark()
        if (yield from reader.next_is(_START)):
            reader.take(len(_START))
        found = yield from reader.until((_BODY, *_ENDS, "<|start|>"), lambda text: None)
        if found is None:
            raise CutOffError
        header += reader.since_mark()
        if found == _BODY:
            reader.take(len(found))
            return header
        output.say(_CONTROL.sub("", header.removeprefix(_START)))
        header = ""
        if found in _ENDS:
            reader.take(len(found))


def _message(reader: Reader, output: Output, tools: Tools, header: str, leftover: list[str]) -> Reading[None]:
    """A message's body and its end."""
    channels = _CHANNEL.findall(header)
    recipient = _RECIPIENT.search(header)
    receiver = recipient.group(1) if recipient else "assistant"
    ends: tuple[str, ...] = _TEXT_ENDS
    sink: Callable[[str], object] = output.say
    if tools and receiver.startswith("functions."):
        try:
            yield from _call(reader, output, receiver.removeprefix("functions."))
        except CutOffError:
            leftover.append(header + _BODY)
            raise
        ends = (*_ENDS, "<|start|>")
    elif receiver != "assistant":
        sink = leftover.append
    elif channels and channels[-1] == "analysis":
        output.turn()
        sink = output.think
    reader.unmark()
    found = yield from reader.until(ends, sink)
    if found is None:
        raise CutOffError
    if found in _ENDS:
        reader.take(len(found))
    if sink == output.think:
        output.turn()


def _call(reader: Reader, output: Output, name: str) -> Reading[None]:
    """A call's arguments; text that is none is an answer."""
    reader.mark()
    try:
        output.call(Call(name, values.as_object((yield from values.value(reader)))))
    except MalformedError:
        output.say(reader.since_mark())
