"""Text completions in the shape of llama-cpp-python and the OpenAI API, made from a stream of chunks.

Knows dictionaries; leaves prompts, sampling and decoding to MaskProbeLlama.
"""

from __future__ import annotations

import codecs
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .results import Chunk, TokenLogprobs

Piece = Callable[[int], bytes]  # the bytes of one token


@dataclass
class Envelope:
    """What all chunks of one completion have in common."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(self, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> dict[str, Any]:
        """A text_completion with one choice."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}],
        }


def stream_completion(
    chunks: Iterator[Chunk], envelope: Envelope, n_prompt: int, before: str, piece: Piece
) -> Iterator[dict[str, Any]]:
    """One dictionary per piece of text; the last has the finish reason, the usage and the timings.

    Args:
        chunks: of the generation.
        n_prompt: tokens of the prompt.
        before: text in front of the completion: the prompt, where it is echoed.
        piece: names tokens in logprobs.
    """
    if before:
        yield envelope.wrap(before, None, None)
    logprobs = _Logprobs(before, piece)
    n_completion = 0
    for chunk in chunks:
        n_completion += len(chunk.tokens)
        logprobs.add(chunk)
        if chunk.finish_reason is not None:
            assert chunk.stats is not None, "a stream ends with its figures"
            figures = logprobs.take()
            if chunk.text or figures:
                yield envelope.wrap(chunk.text, figures, None)
            usage = {"prompt_tokens": n_prompt, "completion_tokens": n_completion}
            last = envelope.wrap("", None, chunk.finish_reason)
            yield last | {"usage": usage | {"total_tokens": sum(usage.values())}, "timings": chunk.stats.timings()}
        elif chunk.text:
            yield envelope.wrap(chunk.text, logprobs.take(), None)


def whole_completion(parts: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The parts of a streamed completion as one."""
    texts: list[str] = []
    logprobs: dict[str, list[Any]] | None = None
    for part in parts:
        choice = part["choices"][0]
        texts.append(choice["text"])
        if choice["logprobs"] is not None:
            logprobs = logprobs if logprobs is not None else {key: [] for key in choice["logprobs"]}
            for key, values in choice["logprobs"].items():
                logprobs[key] += values
    choice |= {"text": "".join(texts), "logprobs": logprobs}
    return part


class _Logprobs:
    """Holds the log-probabilities of tokens back until all their text is out, so that none leaks past a stop.

    Counts in bytes: tokens may end in the middle of a character.
    """

    def __init__(self, before: str, piece: Piece) -> None:
        self._piece = piece
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = len(before)  # of the next token in the text, in characters
        self._n_ahead = 0  # bytes of text that are out and belong to no token yet
        self._waiting: deque[tuple[int, int, TokenLogprobs]] = deque()  # offset, token, figures

    def add(self, chunk: Chunk) -> None:
        for token in chunk.tokens if chunk.logprobs else ():
            assert chunk.logprobs is not None
            self._waiting.append((self._offset, token, chunk.logprobs))
            self._offset += len(self._characters.decode(self._piece(token)))
        self._n_ahead += len(chunk.text.encode())

    def take(self) -> dict[str, Any] | None:
        """Figures of the tokens whose text has come out; None if there are none."""
        taken: dict[str, list[Any]] = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
        while self._waiting and (n := len(self._piece(self._waiting[0][1]))) <= self._n_ahead:
            self._n_ahead -= n
            offset, token, figures = self._waiting.popleft()
            taken["tokens"].append(self._text(token))
            taken["text_offset"].append(offset)
            taken["token_logprobs"].append(figures.logprob)
            ranked = {self._text(other): logprob for other, logprob in figures.top if other >= 0}
            taken["top_logprobs"].append(ranked | {self._text(token): figures.logprob})
        return taken if taken["tokens"] else None

    def _text(self, token: int) -> str:
        return self._piece(token).decode("utf-8", "replace")
