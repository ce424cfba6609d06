"""Prompts to fill in the middle of a file, with other files of its project before it.

Knows the order of their tokens; leaves which tokens those are to the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..llamacpp.vocabulary import Vocabulary

# What the models were trained with stands for a name that nobody has given.
_PROJECT, _FILE = "myproject", "filename"
_SNIPPET = "\n\n--- snippet ---\n\n"


class File(NamedTuple):
    """Another file of the project."""

    name: str
    text: str


def infill_prompt(
    vocab: Vocabulary, prefix: str, suffix: str, *, begun: str = "", files: Sequence[File] = (), room: int
) -> list[int]:
    """The token ids of a prompt for what stands between prefix and suffix.

    What is far from the gap is cut: files from the first on, then the prefix's start and the suffix's end, three
    tokens to one.

    Args:
        begun: text between prefix and gap, which is never cut.
        files: from the least to the most useful.
        room: most tokens, as far as cutting helps.

    Raises:
        ValueError: the model has no fill-in-the-middle tokens.
    """
    tokens = vocab.infill()
    if tokens is None:
        raise ValueError("the model has no fill-in-the-middle tokens")
    before, behind, middle = tokens
    start = [vocab.bos] if vocab.adds_bos and vocab.bos >= 0 else []
    line = _ids(vocab, begun)
    room -= len(start) + len(line) + 3
    head, tail = _ids(vocab, prefix), _ids(vocab, suffix)
    n_tail = min(len(tail), max(room // 4, room - len(head), 0))
    n_head = min(len(head), max(room - n_tail, 0))
    others = _files(vocab, files, room - n_head - n_tail)
    return [*start, *others, before, *head[len(head) - n_head :], *line, behind, *tail[:n_tail], middle]


def _files(vocab: Vocabulary, files: Sequence[File], room: int) -> list[int]:
    """As many of the last files as there is room for, and the name of the file with the gap."""
    project, separator = vocab.infill_files()
    begin = [project, *_ids(vocab, f"{_PROJECT}\n")] if project >= 0 else []
    end = [separator, *_ids(vocab, f"{_FILE}\n")] if separator >= 0 else []
    room -= len(begin) + len(end)
    kept: list[int] = []
    for file in reversed(files):
        if separator >= 0:
            ids = [separator, *_ids(vocab, f"{file.name}\n{file.text}")]
        else:
            ids = _ids(vocab, _SNIPPET + file.text)
        if len(ids) + len(kept) > room:
            break
        kept = ids + kept
    return [*begin, *kept, *end] if kept else []


def _ids(vocab: Vocabulary, text: str) -> list[int]:
    return vocab.tokenize(text.encode("utf-8", "surrogatepass"), False, False)
