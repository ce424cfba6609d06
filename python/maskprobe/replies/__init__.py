"""What a model's text holds: reasoning, an answer, and calls of tools."""

from maskprobe.replies.events import CallArguments, CallBegins, CallEnds, Content, Event, Leftover, Reasoning
from maskprobe.replies.formats import Format
from maskprobe.replies.parser import Parser
from maskprobe.replies.table import FORMATS, find_format, named

__all__ = [
    "FORMATS",
    "CallArguments",
    "CallBegins",
    "CallEnds",
    "Content",
    "Event",
    "Format",
    "Leftover",
    "Parser",
    "Reasoning",
    "find_format",
    "named",
]
