"""Reads one reply: text comes in as it is written, events go out.

A call comes out once it is whole, so that no client ever runs half of one; text that turns out to be no call is
content after all. What the reply's end cut off comes out as a Leftover.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskprobe.replies import channels
from maskprobe.replies.events import Content, Event, Reasoning
from maskprobe.replies.output import Output
from maskprobe.replies.reader import CutOffError, MalformedError, Reader, Reading
from maskprobe.replies.shapes import Call, Tools, call

if TYPE_CHECKING:
    from maskprobe.replies.formats import Format
    from maskprobe.replies.notations import Calls, Tags

# What stands between messages: a tag before it was in a message, and speaks of reasoning at most.
_TURNS = re.compile(r"<\||\|>|<\uff5c|\[/?INST\]|</?s>|<(start|end)_of_turn>|</?role>")


class Parser:
    """Reads one reply in a format: feed it the text in any pieces, then finish it. No text raises."""

    def __init__(self, form: Format, tools: Sequence[Mapping[str, Any]], prompt_end: str) -> None:
        self._reader = Reader()
        self._output = Output(form.trims)
        offered = Tools(tools)
        if form.channels:
            self._run = channels.read(self._reader, self._output, offered, prompt_end)
        else:
            opened = opened_reasoning(form, prompt_end)
            if opened or prompt_end.rstrip().endswith(tuple(tags.end for tags in form.reasoning)):
                self._output.turn()
            self._run = _Reply(self._reader, self._output, form, offered).read(opened)
        next(self._run)

    def feed(self, text: str) -> list[Event]:
        """The events that this further piece of the reply completes."""
        if text:
            self._reader.feed(text)
            next(self._run)
        return self._output.drain()

    def finish(self) -> list[Event]:
        """The events left at the reply's end; nothing may be fed after it."""
        self._reader.close()
        next(self._run, None)
        return self._output.drain()


def opened_reasoning(form: Format, prompt_end: str) -> Tags | None:
    """The reasoning that a prompt's end has opened and not ended."""
    for tags in form.reasoning:
        _, begin, after = prompt_end.rpartition(tags.begin.strip())
        if begin and tags.end not in after and not _TURNS.search(after):
            return tags
    return None


class _Reply:
    """The way through a reply whose answer, reasoning and calls are told apart by markers."""

    def __init__(self, reader: Reader, output: Output, form: Format, tools: Tools) -> None:
        self._reader = reader
        self._output = output
        self._form = form
        self._tools = tools
        self._bare = tuple(calls for calls in form.calls if calls.bare and tools)
        self._marked = tuple(calls for calls in form.calls if not calls.bare and tools)
        self._triggers = tuple(text for calls in self._marked for text in calls.triggers)
        self._begins = {tags.begin.strip(): tags for tags in form.reasoning}
        self._markers = (*self._triggers, *self._begins, *(tags.end for tags in form.reasoning), *form.frames)
        self._drafted: list[Call] = []  # calls within reasoning: they count if the reply ends with them
        self._draft: list[str] = []  # their text: reasoning, if it goes on after them

    def read(self, opened: Tags | None) -> Reading[None]:
        """Reads the reply; `opened`: the reasoning that it goes on with."""
        reader, output = self._reader, self._output
        leftover: str | None = ""
        while True:
            if self._bare and not opened and not output.said and (leftover := (yield from self._try_bare())):
                break
            found = yield from reader.until(self._markers, self._think if opened else output.say)
            if found is None:
                break
            if found in self._triggers:
                leftover = yield from self._try(self._marked, len(found), reasoning=opened is not None)
                if leftover:
                    break
                continue
            reader.take(len(found))
            opened = self._turn(found, opened)
        if self._drafted:
            output.turn()
        for one in self._drafted:
            output.call(one)
        output.end(leftover or "", Reasoning if opened else Content)

    def _turn(self, marker: str, opened: Tags | None) -> Tags | None:
        """Reasoning begins or ends at a marker, or it is text; returns the reasoning that is open after it."""
        is_frame = marker in self._form.frames
        if opened and (is_frame or marker == opened.end):
            self._undraft()
            self._output.turn()
            return None
        if is_frame or (opened and marker == opened.begin.strip()):
            return opened
        if opened:
            self._think(marker)
            return opened
        if self._output.said:  # reasoning comes before an answer; later the marker is spoken of
            self._output.say(marker)
            return None
        self._output.turn()
        return self._begins.get(marker)  # none at the end of reasoning that was ended already

    def _think(self, text: str) -> None:
        if not self._drafted:
            self._output.think(text)
        elif text.strip():
            self._undraft()
            self._output.think(text)
        else:
            self._draft.append(text)

    def _undraft(self) -> None:
        """Reasoning goes on after its calls: they were a part of it."""
        self._drafted.clear()
        self._output.think("".join(self._draft))
        self._draft.clear()

    def _try_bare(self) -> Reading[str | None]:
        """Calls that nothing marks, if the reply begins with them; returns what the reply's end cut off."""
        reader = self._reader
        try:
            blank = yield from reader.blank()
            self._output.say(blank)
            starts = "".join((calls.begin or "{")[0] for calls in self._bare)
            if (yield from reader.peek()) not in starts:
                return None
        except CutOffError:
            return None
        return (yield from self._try(self._bare, 1, reasoning=False))

    def _try(self, ways: Sequence[Calls], least: int, *, reasoning: bool) -> Reading[str | None]:
        """Reads calls in one of these ways. Text that is none goes where the text round it goes, at least so much.

        Returns what the reply's end cut off.
        """
        reader = self._reader
        say = self._think if reasoning else self._output.say
        before = self._output.calls
        furthest, cut = least, False
        reader.mark()
        for calls in ways:
            held: list[Call] | None = [] if calls.bare or reasoning else None
            try:
                yield from self._block(calls, held)
                self._settle(held or [], reasoning)
                return None
            except CutOffError:
                cut = True
            except MalformedError:
                pass
            if self._output.calls > before:  # what was whole is out; only what came after it is left
                furthest = 0
                break
            furthest = max(furthest, len(reader.since_mark()))
            reader.back()
        if not furthest:
            text = reader.since_mark()
        elif cut:
            text = reader.rest()
        else:
            text = reader.take(furthest)
        reader.unmark()
        if cut and not reasoning:
            return text
        say(text)
        return None

    def _settle(self, held: list[Call], reasoning: bool) -> None:
        """Gives out calls that were held until all of them were read, or keeps them as drafts."""
        if reasoning:
            self._drafted += held
            self._draft.append(self._reader.since_mark())
        else:
            for one in held:
                self._output.call(one)
        self._reader.unmark()

    def _block(self, calls: Calls, held: list[Call] | None) -> Reading[None]:
        """Calls from their begin to their end: each goes out as soon as it is whole, or is held."""
        reader = self._reader
        yield from reader.literal(calls.begin, optional=calls.unbegun)
        if calls.end and not calls.bare:
            yield from reader.blank()
            if (yield from reader.literal(calls.end, optional=True)):
                return
        while True:
            yield from reader.literal(calls.open, optional=calls.unopened)
            one = yield from call(reader, calls, self._tools)
            if held is None:
                self._output.call(one)
                reader.mark()
            else:
                held.append(one)
            try:
                if not (yield from self._goes_on(calls)):
                    return
            except CutOffError:
                if calls.bare and calls.end:
                    raise
                return

    def _goes_on(self, calls: Calls) -> Reading[bool]:
        """Whether another call follows a whole one; reads what stands between the two, or after the last."""
        reader = self._reader
        between = calls.between.strip()
        yield from reader.literal(calls.close, optional=True)
        if not calls.end:
            if not between or not (yield from reader.followed_by(0, (between,))):
                return False
            return (yield from reader.literal(between))
        yield from reader.blank()
        end = calls.end.split()[0]
        found = yield from reader.next_is(*{text for text in (end, between, calls.start) if text})
        if found is None:
            raise MalformedError
        if found == end:
            yield from reader.literal(calls.end)
            return False
        if found == between:
            yield from reader.literal(between)
        return True
